"""NYUv2: axes, numbers, classes and depth, on tiny files in the exact published layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from official_layouts import NYU_TEST, NYU_TRAIN, write_official
from published_sets import build, prepare

from robustmm import DataError
from robustmm.models.scaler import Scaler


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """The tiny published set; do not write to it."""
    return write_official("nyuv2", tmp_path_factory.mktemp("nyuv2"))


@pytest.fixture
def copied(tmp_path) -> Path:
    """A tiny published set that a test may damage."""
    return write_official("nyuv2", tmp_path / "nyuv2")


@pytest.fixture
def tree(root, tmp_path) -> Path:
    """The prepared tree."""
    prepare("nyuv2", root, tmp_path / "tree")
    return tmp_path / "tree"


def test_nyuv2__turns_axes_and_counts_from_one(root):
    splits = build("nyuv2", root)
    assert splits.train.ids == tuple(f"{number:04d}" for number in NYU_TRAIN)
    assert splits.test.ids == tuple(f"{number:04d}" for number in NYU_TEST)
    with h5py.File(root / "nyu_depth_v2_labeled.mat") as file:
        rgb, depth, label = (file[key][NYU_TRAIN[0] - 1] for key in ("images", "depths", "labels"))
    sample = splits.train[0]
    assert sample["inputs"]["rgb"].dtype == torch.uint8
    assert torch.equal(sample["inputs"]["rgb"], torch.from_numpy(rgb.transpose(0, 2, 1)))
    assert torch.equal(sample["inputs"]["depth"][0], torch.from_numpy(np.floor(depth.T * np.float32(1000))))
    to_40 = np.arange(894) * 7 % 40  # the tiny set's mapping, less 1
    expected = np.where(label.T == 0, 255, to_40[label.T.astype(int) - 1])
    assert torch.equal(sample["target"], torch.from_numpy(expected))


def test_nyuv2__thirteen_classes_go_through_the_forty(root):
    forty, thirteen = (build("nyuv2", root, classes=classes) for classes in (40, 13))
    to_13 = torch.arange(40) * 5 % 13
    expected = forty.train.target(0)
    expected = torch.where(expected == 255, expected, to_13[expected.clamp_max(39)])
    assert torch.equal(thirteen.train.target(0), expected)
    assert len(thirteen.classes) == 13


def test_nyuv2__two_metres_are_scaled_as_published(root):
    splits = build("nyuv2", root)
    depth = splits.test[0]["inputs"]["depth"][None, :, :1, :1]
    assert depth.item() == 2000
    assert Scaler(splits.modalities[1])(depth).item() == pytest.approx(-0.594069, abs=1e-6)
    rgb = Scaler(splits.modalities[0])(torch.tensor([0.0, 127.5, 255.0]).view(1, 3, 1, 1)).flatten()
    expected = torch.tensor([-0.485 / 0.229, (0.5 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    torch.testing.assert_close(rgb, expected)


def test_nyuv2__holes_of_raw_depth_become_zero(root):
    splits = build("nyuv2", root, depth="raw")
    depth = splits.train[0]["inputs"]["depth"][None]
    assert (depth == 0).any()
    assert (Scaler(splits.modalities[1])(depth)[depth == 0] == 0).all()


def test_nyuv2__scenes_are_groups_where_they_are_known(tree):
    splits = build("nyuv2", tree)
    assert splits.train_groups.tolist() == [0, 1, 1, 1, 2, 2, 3, 3, 3]
    (tree / "scenes.txt").unlink()  # as other code leaves the tree
    splits = build("nyuv2", tree)
    assert splits.train_groups is None
    assert splits.notes["carved"] == "by picture"


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ({"trainNdxs": [0, 3], "testNdxs": [1]}, r"picture 0 is none of the 12 .* count from 1"),
        ({"trainNdxs": [3, 13], "testNdxs": [1]}, r"picture 13 is none of the 12"),
        ({"trainNdxs": [3, 4], "testNdxs": [4]}, r"a picture stands twice"),
        ({"trainNdxs": [3, 4]}, r"splits\.mat lacks testNdxs"),
    ],
)
def test_nyuv2__names_a_wrong_split(copied, numbers, text):
    scipy.io.savemat(
        copied / "splits.mat", {key: np.array(value, np.uint16)[:, None] for key, value in numbers.items()}
    )
    with pytest.raises(DataError, match=text):
        build("nyuv2", copied)


def test_nyuv2__names_damaged_files(copied):
    scipy.io.savemat(copied / "classMapping40.mat", {"mapClass": np.ones((1, 893), np.uint8)})
    with pytest.raises(DataError, match=r"classMapping40\.mat: expected 894 labels of 1 to 40, got shape \(893,\)"):
        build("nyuv2", copied)
    (copied / "splits.mat").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"splits\.mat: not a readable MATLAB file"):
        build("nyuv2", copied)
    shutil.copy(copied / "nyu_depth_v2_labeled.mat", copied / "splits.mat")
    with pytest.raises(DataError, match=r"splits\.mat: a MATLAB file of version 7\.3, expected version 5"):
        build("nyuv2", copied)
    (copied / "nyu_depth_v2_labeled.mat").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"labeled\.mat: not a readable MATLAB file of version 7\.3"):
        build("nyuv2", copied)


def test_nyuv2__refuses_a_label_beyond_the_mapping(copied):
    with h5py.File(copied / "nyu_depth_v2_labeled.mat", "r+") as file:
        file["labels"][2, 0, 0] = 895
    with pytest.raises(DataError, match=r"labels\[2\]: holds label 895; expected 0 to 894"):
        build("nyuv2", copied).train.target(0)


def test_nyuv2__file_lists_of_other_code_are_read(tree):
    (tree / "train.txt").write_text("0003\n0004")  # without a newline at the end
    assert build("nyuv2", tree).train.ids == ("0003", "0004")
