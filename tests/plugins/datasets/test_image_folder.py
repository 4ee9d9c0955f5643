"""Folders of one's own pictures."""

import logging

import numpy as np
import pytest
import torch
from image_layouts import SIZE, save, write_folder
from pydantic import ValidationError
from robustmm_plugins.datasets import image_folder as plugin

from robustmm import VOID, DataError

MODALITIES = {
    "rgb": {"role": "colour", "scaling": "imagenet", "unit": "0-255"},
    "thermal": {"role": "continuous", "channels": 1},
    "depth": {"role": "exact", "channels": 1, "unit": "mm", "invalid": 0},
}
PARTS = {"train": 4, "val": 2, "test": 3}


def build(root, **options):
    given = {"modalities": MODALITIES, "classes": ["ground", "tree", "car"], "size": (16, 20), **options}
    return plugin.build_image_folder(**dict(plugin.FolderOptions(root=str(root), **given)))


@pytest.fixture
def root(tmp_path):
    write_folder(tmp_path, PARTS)
    return tmp_path


@pytest.mark.parametrize("lists", [False, True])
def test_image_folder__reads_folders_and_lists(tmp_path, lists):
    write_folder(tmp_path, PARTS, lists=lists)
    splits = build(tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (4, 2, 3)
    assert splits.train.ids[0] == ("train_0" if lists else "train/000")
    sample = splits.test[0]
    assert {name: (tuple(value.shape), value.dtype) for name, value in sample["inputs"].items()} == {
        "rgb": ((3, 16, 20), torch.uint8),
        "thermal": ((1, 16, 20), torch.uint8),
        "depth": ((1, 16, 20), torch.float32),
    }
    assert sample["target"].shape == SIZE
    assert (sample["target"][:2] == VOID).all()
    assert splits.notes["split"] == ("as the lists say" if lists else "as the folders say")


def test_image_folder__says_what_modalities_are(root):
    rgb, thermal, depth = build(root).modalities
    assert rgb.scaling.mode == "constants"
    assert rgb.unit == "0-255"
    assert thermal.scaling.mode == "standardise"
    assert (depth.scaling.invalid, depth.unit) == (0, "mm")


def test_image_folder__takes_other_names_of_parts_and_folders(root):
    (root / "val").rename(root / "validation")
    (root / "train" / "rgb").rename(root / "train" / "left")
    (root / "test" / "rgb").rename(root / "test" / "left")
    (root / "validation" / "rgb").rename(root / "validation" / "left")
    splits = build(root, modalities={"rgb": {"role": "colour", "folder": "left"}})
    assert splits.validation.ids == ("validation/000", "validation/001")
    assert splits.train[0]["inputs"]["rgb"].shape == (3, 16, 20)


def test_image_folder__file_that_is_not_there_is_a_missing_modality(root):
    (root / "train" / "depth" / "001.png").unlink()
    for path in (root / "test" / "thermal").iterdir():
        path.unlink()
    splits = build(root)
    assert splits.train[1]["inputs"]["depth"] is None
    assert splits.train[0]["inputs"]["depth"] is not None
    assert all(splits.test[index]["inputs"]["thermal"] is None for index in range(3))
    augmented = splits.train.augment(splits.train[1], torch.Generator())
    assert augmented["inputs"]["depth"] is None
    assert augmented["target"].shape == (16, 20)


def test_image_folder__leaves_out_and_counts_what_has_no_label(root, caplog):
    (root / "train" / "label" / "003.png").unlink()
    with caplog.at_level(logging.WARNING, "robustmm.data"):
        splits = build(root)
    assert splits.train.ids == ("train/000", "train/001", "train/002")
    assert splits.notes["without label map"] == 1
    assert "train: 1 samples without label map left out: 003" in caplog.text


def test_image_folder__keeps_groups_together(root):
    for place in (root / "train").iterdir():
        for path in sorted(place.iterdir()):
            path.rename(place / f"seq{int(path.stem) // 2}_{path.name}")
    assert build(root, group_pattern=r"(seq\d+)_").train_groups.tolist() == [0, 0, 1, 1]
    with pytest.raises(DataError, match=r"group_pattern 'place\(.\)' is not found in 'seq0_000'"):
        build(root, group_pattern="place(.)")


def test_image_folder__reads_arrays_and_refuses_what_is_not_finite(root):
    for path in (root / "train" / "thermal").iterdir():
        path.unlink()
        values = np.full(SIZE, 20.5, np.float64)
        values[0, 0] = np.nan if path.stem == "001" else 20.5
        np.save(path.with_suffix(".npy"), values)
    splits = build(root)
    assert splits.train[0]["inputs"]["thermal"].unique().tolist() == [20.5]
    with pytest.raises(DataError, match=r"001\.npy \(thermal\): holds values that are not finite; set 'invalid'"):
        splits.train[1]
    modalities = {"thermal": {"role": "exact", "channels": 1, "invalid": -1.0}}
    assert build(root, modalities=modalities, size=SIZE).train[1]["inputs"]["thermal"][0, 0, 0] == -1


def test_image_folder__takes_many_channels_from_arrays_alone(root):
    for part in PARTS:
        for path in list((root / part / "thermal").iterdir()):
            np.save(path.with_suffix(".npy"), np.ones((*SIZE, 5), np.int64))
            path.unlink()
    modalities = {"thermal": {"role": "continuous", "channels": 5}}
    assert build(root, modalities=modalities).train[0]["inputs"]["thermal"].shape == (5, 16, 20)
    with pytest.raises(DataError, match=r"pictures have 1 or 3 channels; 5 are read from \.npy files"):
        build(root, modalities={"rgb": {"role": "colour", "channels": 5}}).train[0]


def test_image_folder__counts_unreadable_files_as_missing_where_asked(root):
    (root / "train" / "depth" / "000.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"000\.png \(depth\): is truncated"):
        build(root).train[0]
    splits = build(root, on_unreadable="missing")
    assert splits.train[0]["inputs"]["depth"] is None
    assert len(splits.train.unreadable_cells) == 1


def test_image_folder__says_what_is_there_where_something_is_not(root, tmp_path):
    with pytest.raises(DataError, match=r"nothing for train: .*none is not a folder; expected .*/\{train,val,test\}/"):
        build(tmp_path / "none")
    modalities = {"dpeth": {"role": "exact", "channels": 1}}
    text = r"train/dpeth: no file of modality 'dpeth' is there - did you mean 'depth'\?; folders: depth, label, rgb, th"
    with pytest.raises(DataError, match=text):
        build(root, modalities=modalities)
    with pytest.raises(DataError, match=r"train/labels: no label map .* is there; folders: depth, label, rgb, thermal"):
        build(root, label_folder="labels")
    (root / "test").rename(root / "holdout")
    with pytest.raises(DataError, match=r"nothing for test: .* holds holdout, train, val; expected"):
        build(root)


def test_image_folder__names_samples_without_label_or_modality(tmp_path):
    write_folder(tmp_path, PARTS, lists=True)
    (tmp_path / "train.txt").write_text("train_0\ntrain_9\n")
    with pytest.raises(DataError, match=r"label: no file of 1 of 2 samples: train_9; it holds test_0"):
        build(tmp_path)
    (tmp_path / "train.txt").write_text("train_0\n")
    (tmp_path / "rgb" / "train_0.jpg").unlink()
    with pytest.raises(DataError, match="1 samples have a label map and no modality: train_0; leave them out"):
        build(tmp_path, modalities={"rgb": {"role": "colour"}})


def test_image_folder__names_a_label_that_is_no_class(root):
    save(root / "test" / "label" / "000.png", np.full(SIZE, 7, np.uint8))
    with pytest.raises(DataError, match=r"000\.png: label 7 is not a class; accepted are 0 to 2 and 255 for void"):
        build(root).test[0]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"classes": ["a", "a"]}, "a name stands there twice"),
        ({"colours": [(0, 0, 0)]}, "colours: 1 for 3 classes"),
        ({"size": (0, 3)}, "size must be positive"),
        ({"group_pattern": "abc"}, "group_pattern needs a group in brackets"),
        ({"group_pattern": "("}, "group_pattern is no regular expression"),
        ({"modalities": {"d": {"role": "exact", "channels": 1, "scaling": "imagenet"}}}, "for three channels"),
        ({"modalities": {"d": {"channels": 1}}}, "role"),
        (
            {"modalities": {"d": {"role": "continuous", "channels": 1, "invalid": 0}}},
            "invalid needs role exact: continuous is smoothed",
        ),
    ],
)
def test_image_folder__refuses_options_that_do_not_fit(root, options, text):
    with pytest.raises(ValidationError, match=text):
        build(root, **options)
