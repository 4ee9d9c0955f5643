"""SUN RGB-D: rotated depth, sizes, split and labels, on tiny files in the exact published layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from official_layouts import SUN_FRAMES, write_official
from published_sets import build
from robustmm_plugins.datasets import _sunrgbd_files

from robustmm import DataError
from robustmm.models.scaler import Scaler


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """The tiny published set; do not write to it."""
    return write_official("sunrgbd", tmp_path_factory.mktemp("sunrgbd"))


@pytest.fixture
def copied(tmp_path) -> Path:
    """A tiny published set that a test may damage."""
    return write_official("sunrgbd", tmp_path / "sunrgbd")


def test_sunrgbd__rotation_is_undone_and_clipped_at_eight_metres():
    values = np.array([[16000, 16003, 64000, 0]], np.uint16)
    assert _sunrgbd_files.rotated_to_mm(values).tolist() == [[2000, 8000, 8000, 0]]
    unclipped = (values.astype(int) >> 3) | ((values.astype(int) << 13) & 0xFFFF)
    assert unclipped.tolist() == [[2000, 26576, 8000, 0]]


def test_sunrgbd__split_lists_and_sizes_are_the_published_ones(root):
    splits = build("sunrgbd", root)
    assert splits.train.ids == tuple(frame for frame, (_, train) in SUN_FRAMES.items() if train)
    assert splits.test.ids == tuple(frame for frame, (_, train) in SUN_FRAMES.items() if not train)
    for part in (splits.train, splits.test):
        for index, id_ in enumerate(part.ids):
            sample = part[index]
            assert sample["inputs"]["depth"].shape == (1, 48, 64)
            assert tuple(sample["target"].shape) == SUN_FRAMES[id_][0]
    # Two scans of SUN3D with two frames each; every other frame is alone.
    assert sorted(torch.unique(splits.train_groups, return_counts=True)[1].tolist()) == [1, 1, 1, 1, 1, 2, 2]


def test_sunrgbd__labels_are_turned_and_void_is_zero(root):
    with h5py.File(root / "SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat") as file:
        label = file[file["SUNRGBD2Dseg/seglabel"][1, 0]][()].T.astype(int)
    target = build("sunrgbd", root).train.target(0)  # the second frame is the first of training
    assert torch.equal(target, torch.from_numpy(np.where(label == 0, 255, label - 1)))


def test_sunrgbd__values_are_named_and_agree_once_scaled(root):
    rotated, metric = (build("sunrgbd", root, values=values, size=(43, 57)) for values in ("raw_rotated", "mm"))
    first, second = (splits.train[0]["inputs"]["depth"] for splits in (rotated, metric))
    assert first[0, 0, 0] == 16000
    assert second[0, 0, 0] == 2000
    near = second < 8000
    assert torch.equal(first[near], second[near] * 8)
    assert [splits.modalities[1].unit for splits in (rotated, metric)] == ["mm, rotated by 3 bits", "mm"]
    ours, theirs = (Scaler(splits.modalities[1])(value[None]) for splits, value in ((rotated, first), (metric, second)))
    torch.testing.assert_close(ours[near[None]], theirs[near[None]])
    assert Scaler(rotated.modalities[1])(first[None])[0, 0, 0, 0].item() == pytest.approx(
        (16000 - 19025.1493) / 9880.9161
    )


def test_sunrgbd__reads_the_split_under_its_other_name_and_double_slashes(copied):
    toolbox = copied / "SUNRGBDtoolbox"
    frames = [f"/n/fs/sun3d/data/SUNRGBD//{frame}/" for frame, (_, train) in SUN_FRAMES.items() if train]
    (toolbox / "traintestsplit").mkdir()
    shutil.rmtree(toolbox / "traintestSUNRGBD")
    scipy.io.savemat(toolbox / "traintestsplit/allsplit.mat", {"alltrain": np.array([frames], object)})
    assert len(build("sunrgbd", copied).train) == len(frames)


def test_sunrgbd__names_what_does_not_fit(copied):
    split = copied / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
    scipy.io.savemat(split, {"alltrain": np.array([["/n/fs/sun3d/data/SUNRGBD/kv9/a/b"]], object)})
    with pytest.raises(DataError, match=r"none of its 1 frames is in .*SUNRGBDMeta\.mat, the first is kv9/a/b"):
        build("sunrgbd", copied)
    scipy.io.savemat(copied / "SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat", {"SUNRGBDMeta": np.zeros((1, 2))})
    with pytest.raises(DataError, match=r"SUNRGBDMeta\.mat: entry 1: .*rgbpath.*; is it the published file\?"):
        build("sunrgbd", copied)
    scipy.io.savemat(split, {"alltrain": np.array([["/data/kv1"]], object)})
    with pytest.raises(DataError, match="'/data/kv1' is no path below SUNRGBD"):
        build("sunrgbd", copied)


@pytest.mark.parametrize("label", [256.0, 2.5])
def test_sunrgbd__refuses_a_label_that_8_bits_do_not_hold(copied, label):
    path = copied / "SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat"
    with h5py.File(path, "r+") as file:
        file["wrong"] = np.full((57, 43), label)
        file["SUNRGBD2Dseg/seglabel"][1, 0] = file["wrong"].ref
    with pytest.raises(DataError, match=rf"holds labels {label}.* expected whole numbers from 0 to 37"):
        build("sunrgbd", copied).train.target(0)
