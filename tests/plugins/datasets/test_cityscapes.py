"""Cityscapes: depth from stereo, labels, parts and sizes, on tiny files in the exact published layout."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from official_layouts import CITIES, write_official
from published_sets import build
from robustmm_plugins.datasets import _cityscapes_files

from robustmm import DataError
from robustmm.models.scaler import Scaler


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """The tiny published set; do not write to it."""
    return write_official("cityscapes", tmp_path_factory.mktemp("cityscapes"))


@pytest.fixture
def copied(tmp_path) -> Path:
    """A tiny published set that a test may damage."""
    return write_official("cityscapes", tmp_path / "cityscapes")


def test_cityscapes__depth_follows_the_formula():
    disparity = np.array([[12801, 257, 1, 0]], np.uint16)
    metres = _cityscapes_files.to_metres(disparity, 473.5748)
    np.testing.assert_allclose(metres, [[9.4715, 473.5748, 0, 0]], rtol=1e-5)
    used = _cityscapes_files.as_used(_cityscapes_files.as_stored(metres))
    np.testing.assert_allclose(used, [[9.4715, 0, 0, 0]], rtol=5e-4)  # half precision has 11 bits
    assert _cityscapes_files.as_used(_cityscapes_files.as_stored(np.full((1, 1), 1e5, np.float32))) == 0


def test_cityscapes__depth_of_a_sample_and_its_scaling(root):
    splits = build("cityscapes", root, size=(64, 128))
    depth = splits.train[0]["inputs"]["depth"]
    assert depth[0, 0, :3].tolist() == [0, 0, 0]  # nothing, no shift, and beyond 300 m
    assert depth[0, 0, 3].item() == pytest.approx(9.4715, rel=5e-4)
    scaler = Scaler(splits.modalities[1])
    assert scaler(torch.full((1, 1, 1, 1), 20.0)).item() == pytest.approx(-0.302707, abs=1e-6)
    assert (scaler(depth[None])[0, 0, 0, :3] == 0).all()


def test_cityscapes__disparity_is_as_in_the_files(root):
    splits = build("cityscapes", root, size=(64, 128), depth="disparity")
    values = splits.train[0]["inputs"]["disparity"]
    assert values[0, 0, :4].tolist() == [0, 1, 257, 12801]
    expected = (12801 - 9069.7063) / 7178.3360
    assert Scaler(splits.modalities[1])(values[None])[0, 0, 0, 3].item() == pytest.approx(expected, rel=1e-5)


def test_cityscapes__label_ids_become_the_nineteen_classes():
    table = _cityscapes_files.label_table().astype(int) - 1
    train_ids = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13}
    train_ids |= {27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
    assert {label: int(table[label]) for label in train_ids} == train_ids
    assert all(table[label] == -1 for label in range(34) if label not in train_ids)


def test_cityscapes__val_is_tested_and_cities_are_groups(root):
    splits = build("cityscapes", root)
    assert len(splits.train) == sum(CITIES["train"].values())
    assert {id_.partition("_")[0] for id_ in splits.test.ids} == set(CITIES["val"])
    assert splits.train_groups.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert "withheld" in splits.notes["split"]
    assert set(splits.train.target(0).unique().tolist()) <= {0, 1, 2, 10, 13, 18, 255}


def test_cityscapes__training_and_evaluation_may_differ_in_size(root):
    splits = build("cityscapes", root, size=(32, 64), evaluation_size=(64, 128))
    assert splits.train[0]["inputs"]["rgb"].shape == (3, 32, 64)
    assert splits.test[0]["inputs"]["depth"].shape == (1, 64, 128)
    assert splits.test[0]["target"].shape == (64, 128)


def test_cityscapes__names_missing_files_and_wrong_labels(copied):
    name = "aachen_000000_000019"
    label = copied / f"gtFine/train/aachen/{name}_gtFine_labelIds.png"
    cv2.imwrite(str(label), np.full((64, 128), 34, np.uint8))
    with pytest.raises(DataError, match="holds label 34; labelIds are 0 to 33"):
        build("cityscapes", copied).train.target(0)
    camera = copied / f"camera/train/aachen/{name}_camera.json"
    camera.write_text(json.dumps({"intrinsic": {"fx": 1}}))
    with pytest.raises(DataError, match=r"parameters in .*_camera\.json cannot be read"):
        build("cityscapes", copied).train[0]["inputs"]["depth"]
    (copied / f"disparity/train/aachen/{name}_disparity.png").unlink()
    with pytest.raises(DataError, match="1 of 9 frames of train lack a disparity file, the first is disparity/train"):
        build("cityscapes", copied)
