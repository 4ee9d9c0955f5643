"""MRI slices: one patient tested, blocks for validation, and preparing the published volumes."""

import json

import numpy as np
import pytest
import torch
from image_layouts import (
    PATIENT_FILES,
    SEQUENCES,
    SIZE,
    SLICES,
    write_lesion,
    write_lesion_repository,
    write_nifti,
    write_prepared,
)
from PIL import Image
from robustmm_plugins.datasets import ms_lesion_mri as plugin

from robustmm import DataError


def silent(label, items):
    return items


def build(root, **options):
    return plugin.build_ms_lesion_mri(**dict(plugin.LesionOptions(root=str(root), **{"size": (16, 20), **options})))


def places(part):
    return {(name[:3], int(name[5:])) for name in part.ids}


@pytest.fixture
def root(tmp_path):
    return write_prepared("ms_lesion_mri", tmp_path / "ms_lesion_mri")


@pytest.mark.parametrize("patient", ["p07", "p19", "p26"])
def test_ms_lesion_mri__tests_one_patient_who_is_seen_nowhere_else(root, patient):
    splits = build(root, test_patient=patient)
    assert {name for name, _ in places(splits.test)} == {patient}
    assert len(splits.test) == len(SLICES)
    for part in (splits.train, splits.validation):
        assert {name for name, _ in places(part)} == {"p07", "p19", "p26"} - {patient}
    assert splits.train_groups.unique(return_counts=True)[1].tolist() == [len(splits.train) // 2] * 2


def test_ms_lesion_mri__validation_is_a_block_without_neighbours_in_training(root):
    splits = build(root)
    for patient in ("p07", "p19"):
        block = sorted(place for name, place in places(splits.validation) if name == patient)
        assert block == list(range(block[0], block[-1] + 1, 2))
        assert len(block) == 3
        apart = [abs(place - other) for name, place in places(splits.train) if name == patient for other in block]
        assert min(apart) == 2 * (plugin.GAP + 1)
    assert len(splits.train) == 2 * (len(SLICES) - 3 - 2 * plugin.GAP)


def test_ms_lesion_mri__leaves_validation_to_whole_patients_where_there_are_enough(tmp_path):
    write_lesion(tmp_path, ("p01", "p02", "p03", "p04"))
    splits = build(tmp_path, patients=("p01", "p02", "p03", "p04"), test_patient="p02")
    assert splits.validation is None
    assert len(splits.train) == 3 * len(SLICES)
    assert splits.train_groups.unique().tolist() == [0, 1, 2]
    assert splits.notes["validation slices"] == "whole patients, carved"


def test_ms_lesion_mri__gives_four_sequences_and_a_mask(root):
    splits = build(root, size=SIZE)
    sample = splits.train[0]
    assert tuple(sample["inputs"]) == SEQUENCES
    assert all(value.shape == (1, *SIZE) and value.dtype == torch.uint8 for value in sample["inputs"].values())
    flair, target = sample["inputs"]["flair"][0].float(), sample["target"]
    assert flair[target == 1].mean() > flair[target == 0].mean() + 40
    augmented = splits.train.augment(sample, torch.Generator().manual_seed(1))
    assert augmented["target"].shape == SIZE


def test_ms_lesion_mri__each_sequence_changes_its_contrast_by_itself(root):
    splits = build(root, size=SIZE, augmentation={"contrast": 0.5})
    sample = splits.train[0]
    changed = splits.train.augment(sample, torch.Generator().manual_seed(1))["inputs"]
    factors = {
        round(float(changed[name].float().mean() / sample["inputs"][name].float().mean()), 2) for name in changed
    }
    assert len(factors) == 4


def test_ms_lesion_mri__names_patients_that_are_not_there(root, tmp_path):
    with pytest.raises(DataError, match="test_patient 'p01' is none of patients p07, p19, p26"):
        build(root, test_patient="p01")
    with pytest.raises(DataError, match="no slice of patient 'p01'; there are p07, p19, p26"):
        build(root, patients=("p01", "p26"))
    with pytest.raises(DataError, match=r"is not a folder; expected .*meta\.json.*Clone github\.com/muschellij2/"):
        build(tmp_path / "none")
    (root / "t2" / "p07_z030.png").unlink()
    with pytest.raises(DataError, match=r"t2: no file of 1 of .* samples: p07_z030"):
        build(root)


# Preparing


def test_prepare_ms_lesion_mri__cuts_slices_of_whole_patients(tmp_path):
    source, target = tmp_path / "clone", tmp_path / "made"
    write_lesion_repository(source, ["p07"])
    (source / "cross_sectional" / "MNI" / "patient08").mkdir()  # its volumes were not downloaded
    assert plugin.prepare_ms_lesion_mri(source, target, silent) == f"{target}: 15 slices of p07"
    facts = json.loads((target / "meta.json").read_text())["p07"]
    assert (facts["slices"], facts["slices_with_lesion"]) == (15, 5)
    assert facts["intensity_at_255"]["t1"] == 100
    flair, label = (np.asarray(Image.open(target / name / "p07_z044.png")) for name in ("flair", "label"))
    assert flair.shape == label.shape == (176, 144)
    # Voxels x 60..69, y 100..111 of the volume: columns from 60 - 19, rows from 196 - 112 as y points up.
    assert np.argwhere(label).min(axis=0).tolist() == [84, 41]
    assert np.argwhere(label).max(axis=0).tolist() == [95, 50]
    assert set(np.unique(flair)) == {0, 170, 255}
    assert (flair[label == 1] == 255).all()


def test_prepare_ms_lesion_mri__goes_on_where_it_was_stopped(tmp_path):
    source, target = tmp_path / "clone", tmp_path / "made"
    write_lesion_repository(source, ["p07"])
    plugin.prepare_ms_lesion_mri(source, target, silent)
    kept, damaged = target / "t1" / "p07_z032.png", target / "label" / "p07_z032.png"
    before = kept.stat().st_mtime_ns
    damaged.write_bytes(damaged.read_bytes()[:40])
    plugin.prepare_ms_lesion_mri(source, target, silent)
    assert kept.stat().st_mtime_ns == before
    assert np.asarray(Image.open(damaged)).shape == (176, 144)


def test_prepare_ms_lesion_mri__says_what_is_wrong_with_the_source(tmp_path):
    with pytest.raises(DataError, match=r"no patient with all of its volumes; expected a clone of github\.com/musch"):
        plugin.prepare_ms_lesion_mri(tmp_path, tmp_path / "made", silent)
    for name in PATIENT_FILES.values():
        write_nifti(tmp_path / "cross_sectional" / "MNI" / "patient07" / name, np.zeros((4, 5, 6), np.int16))
    with pytest.raises(DataError, match=r"has shape \(4, 5, 6\), expected \(182, 218, 182\)"):
        plugin.prepare_ms_lesion_mri(tmp_path, tmp_path / "made", silent)


@pytest.mark.data("ms_lesion_mri")
def test_ms_lesion_mri__real_slices_show_lesions_in_flair(external_data):
    splits = build(external_data, size=(176, 144))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (87, 16, 53)
    brighter = []
    for index in range(len(splits.test)):
        sample = splits.test[index]
        flair, lesion = sample["inputs"]["flair"][0].float(), sample["target"] == 1
        if lesion.sum() > 20:
            brighter.append(flair[lesion].mean() > flair[flair > 20].mean() + 20)
    assert len(brighter) >= 15
    assert all(brighter)
