"""Potholes: reading prepared files, and preparing the authors' repository."""

import json

import numpy as np
import pytest
import torch
from image_layouts import POTHOLE_SPLITS, SIZE, save, write_pothole_repository, write_prepared
from PIL import Image
from robustmm_plugins.datasets import pothole_rgbd as plugin

from robustmm import DataError
from robustmm.data.collate import Collate


def silent(label, items):
    return items


def build(root, **options):
    return plugin.build_pothole_rgbd(**dict(plugin.PotholeOptions(root=str(root), **{"size": (16, 20), **options})))


@pytest.fixture
def root(tmp_path):
    return write_prepared("pothole_rgbd", tmp_path / "pothole_rgbd")


def test_pothole_rgbd__has_the_parts_of_its_list(root):
    splits = build(root)
    assert splits.train.ids == tuple(POTHOLE_SPLITS["train"])
    assert splits.validation.ids == tuple(POTHOLE_SPLITS["val"])
    assert splits.test.ids == tuple(POTHOLE_SPLITS["test"])
    sample = splits.test[0]
    assert sample["inputs"]["rgb"].shape == (3, 16, 20)
    assert sample["inputs"]["disparity"].shape == (1, 16, 20)
    assert sample["target"].shape == SIZE
    assert set(sample["target"].unique().tolist()) == {0, 1}
    batch = Collate(splits.modalities)([(0, splits.test[0]), (1, splits.test[1])])
    assert batch.observed.all()


def test_pothole_rgbd__road_lies_at_zero_and_invalid_keeps_apart(root):
    splits = build(root, size=SIZE)
    raw = build(root, size=SIZE, centre_disparity=False)
    for index in range(3):
        centred, plain = (part.test[index]["inputs"]["disparity"][0] for part in (splits, raw))
        nothing = plain == 0
        assert nothing.sum() == 6
        assert (centred[nothing] == splits.modalities[1].scaling.invalid).all()
        assert torch.equal(centred[~nothing], plain[~nothing] - np.median(plain[~nothing].numpy()))
        assert abs(centred[~nothing].median()) <= 0.5
        assert centred[splits.test[index]["target"] == 1].max() < -8000
    assert raw.modalities[1].scaling.invalid == 0


def test_pothole_rgbd__augments_both_alike(root):
    splits = build(root, augmentation={"flip": 1.0})
    sample = splits.train[0]
    flipped = splits.train.augment(sample, torch.Generator())
    assert torch.equal(flipped["inputs"]["disparity"], sample["inputs"]["disparity"].flip(2))
    assert flipped["target"].shape == (16, 20)


def test_pothole_rgbd__says_what_to_obtain(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"is not a folder; expected .*splits\.json.*Clone github\.com/ruirangerfan/"):
        build(tmp_path / "none")
    monkeypatch.delenv("ROBUSTMM_DATA", raising=False)
    with pytest.raises(DataError, match=r"environment variable ROBUSTMM_DATA is not set.*robustmm data prepare"):
        build("$ROBUSTMM_DATA/pothole_rgbd")


def test_pothole_rgbd__refuses_a_frame_without_disparity(root):
    save(root / "disparity" / "d2_27.png", np.zeros(SIZE, np.uint16))
    with pytest.raises(DataError, match=r"d2_27\.png \(disparity\): has no valid pixel, all are 0"):
        build(root).test[0]


# Preparing


@pytest.fixture
def repository(tmp_path, monkeypatch):
    frames = {1: 2, 2: 40, 3: 1}
    monkeypatch.setattr(plugin, "FRAMES", frames)
    monkeypatch.setattr(plugin, "PREPARED_SIZE", (16, 27))
    write_pothole_repository(tmp_path / "clone", frames)
    return tmp_path / "clone"


def test_prepare_pothole_rgbd__writes_what_is_read(repository, tmp_path):
    target = tmp_path / "made"
    assert plugin.prepare_pothole_rgbd(repository, target, silent) == f"{target}: 22 train, 6 val, 15 test"
    assert (target / "LICENSE").read_text() == "MIT License\n"
    splits = build(target, size=(16, 27))
    assert splits.test.ids[-1] == "d3_01"
    for index in (0, 14):
        disparity = splits.test[index]["inputs"]["disparity"][0]
        assert (disparity == plugin.NO_DISPARITY).sum() == 4
        # The road has one value, and averages over its pixels are that value.
        assert (disparity == 0).sum() > 100
        hole = splits.test[index]["target"] == 1
        assert hole.any()
        assert disparity[hole].max() <= -4000


def test_prepare_pothole_rgbd__goes_on_where_it_was_stopped(repository, tmp_path):
    target = tmp_path / "made"
    plugin.prepare_pothole_rgbd(repository, target, silent)
    kept, damaged, absent = (target / "rgb" / f"d2_0{number}.png" for number in (1, 2, 3))
    before, whole = kept.stat().st_mtime_ns, damaged.read_bytes()
    damaged.write_bytes(whole[:50])
    absent.unlink()
    plugin.prepare_pothole_rgbd(repository, target, silent)
    assert kept.stat().st_mtime_ns == before
    assert damaged.read_bytes() == whole
    assert absent.is_file()


def test_prepare_pothole_rgbd__averages_valid_disparities_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(plugin, "PREPARED_SIZE", (1, 3))
    raw = np.zeros((2, 6), np.uint16)
    raw[:, 0:2] = [[100, 200], [0, 0]]  # half of the area: their mean
    raw[:, 2:4] = [[0, 0], [0, 40]]  # a quarter: kept
    save(tmp_path / "a.png", raw)
    assert plugin.shrunk_disparity(tmp_path / "a.png").tolist() == [[150, 40, 0]]


def test_prepare_pothole_rgbd__says_what_is_wrong_with_the_source(repository, tmp_path):
    (repository / "dataset2" / "label" / "07.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"dataset2/label/07\.png: is truncated.*download it again"):
        plugin.prepare_pothole_rgbd(repository, tmp_path / "made", silent)
    (repository / "dataset2" / "label" / "07.png").unlink()
    with pytest.raises(
        DataError, match=r"1 of 129 files are not there, the first is .*label/07\.png; expected a clone"
    ):
        plugin.prepare_pothole_rgbd(repository, tmp_path / "made", silent)


@pytest.mark.data("pothole_rgbd")
def test_pothole_rgbd__real_files_are_split_by_place(external_data):
    splits = build(external_data, size=(128, 216))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (42, 6, 19)
    assert json.loads((external_data / "splits.json").read_text()).items() >= plugin.place_splits().items()
    deeper = []
    for index in range(19):
        target = torch.from_numpy(np.asarray(Image.open(splits.test.items[index].label).resize((216, 128), 0)).copy())
        disparity = splits.test[index]["inputs"]["disparity"][0]
        assert 0 < (target == 1).float().mean() < 0.5
        deeper.append(disparity[target == 1].median() < -500)
    # A pothole lies below the road, whose median is 0: less disparity.
    assert sum(deeper) >= 18
