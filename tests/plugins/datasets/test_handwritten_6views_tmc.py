"""The reader of the TMC split: on a file of the same layout written here, and on the real one where it is there."""

import numpy as np
import pytest
import torch
from robustmm_plugins.datasets import handwritten_6views as shipped
from robustmm_plugins.datasets import handwritten_6views_tmc as plugin
from scipy.io import savemat

from robustmm import DataError

VIEWS = {"pixel": 240, "fourier": 76, "profile": 216, "zernike": 47, "karhunen": 64, "morphological": 6}


def write_mat(folder, **changes):
    content = {"gt_train": np.array([[1], [10], [3]], np.uint8), "gt_test": np.array([[2], [4]], np.uint8)}
    for number, size in enumerate(VIEWS.values(), start=1):
        content[f"x{number}_train"] = np.full((3, size), number, np.float64)
        content[f"x{number}_test"] = np.full((2, size), 10 * number, np.uint16)
    content |= changes
    savemat(folder / "handwritten_6views.mat", {key: value for key, value in content.items() if value is not None})


def test_tmc__reads_views_in_order_and_labels_from_one(tmp_path):
    write_mat(tmp_path)
    splits = plugin.build_handwritten_6views_tmc(root=str(tmp_path))
    assert splits.train.target.tolist() == [0, 9, 2]
    assert splits.test.target.tolist() == [1, 3]
    sample = splits.test[1]
    assert [float(value.mean()) for value in sample["inputs"].values()] == [10, 20, 30, 40, 50, 60]
    assert {name: len(value) for name, value in sample["inputs"].items()} == VIEWS
    assert splits.notes["train"] == 3


def test_tmc__names_what_to_obtain_when_the_file_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"lacks handwritten_6views\.mat; expected .*Obtain the file from .*TMC"):
        plugin.build_handwritten_6views_tmc(root=str(tmp_path))


def test_tmc__names_the_variable_that_is_not_set(monkeypatch):
    monkeypatch.delenv("ROBUSTMM_DATA", raising=False)
    with pytest.raises(DataError, match="environment variable ROBUSTMM_DATA is not set"):
        plugin.build_handwritten_6views_tmc(**plugin.TmcOptions().model_dump())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"x3_test": None}, "lacks x3_test"),
        ({"gt_test": np.array([[0], [4]])}, "gt_test must hold labels 1 to 10"),
        ({"x4_train": np.zeros((3, 46))}, r"x4_train \(zernike\) has shape \(3, 46\), expected \(3, 47\)"),
    ],
)
def test_tmc__names_what_is_wrong_in_the_file(tmp_path, changes, text):
    write_mat(tmp_path, **changes)
    with pytest.raises(DataError, match=text):
        plugin.build_handwritten_6views_tmc(root=str(tmp_path))


def test_tmc__refuses_a_file_of_another_format(tmp_path):
    (tmp_path / "handwritten_6views.mat").write_bytes(b"not a mat file" * 40)
    with pytest.raises(DataError, match="not a readable MATLAB 5 file"):
        plugin.build_handwritten_6views_tmc(root=str(tmp_path))


@pytest.mark.data("handwritten_6views")
def test_tmc__rows_are_those_of_the_shipped_table_in_every_view(external_data):
    splits = plugin.build_handwritten_6views_tmc(root=str(external_data))
    assert torch.bincount(splits.train.target).tolist() == [160] * 10
    views, labels = shipped.read_views()
    row_of = {tuple(row): number for number, row in enumerate(views["profile"].int().tolist())}
    rows = torch.tensor([row_of[tuple(row)] for row in splits.train.inputs["profile"].int().tolist()])
    assert len(rows.unique()) == 1595  # six digits lie in the original table twice
    assert torch.equal(labels[rows], splits.train.target)
    for name, values in splits.train.inputs.items():
        torch.testing.assert_close(values, views[name][rows], rtol=1e-4, atol=1e-4)
