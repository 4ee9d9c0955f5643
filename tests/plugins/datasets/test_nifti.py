"""NIfTI-1 volumes."""

import gzip
import struct

import numpy as np
import pytest
from image_layouts import write_nifti
from robustmm_plugins.datasets._nifti import read_volume

from robustmm import DataError

VALUES = np.arange(24).reshape(2, 3, 4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "f4", "f8", "u2"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_read_volume__gives_the_values_along_their_axes(tmp_path, kind, order, name):
    write_nifti(tmp_path / name, VALUES.astype(kind), order=order)
    assert np.array_equal(read_volume(tmp_path / name), VALUES)


def test_read_volume__scales_as_the_header_says(tmp_path):
    write_nifti(tmp_path / "a.nii", VALUES.astype(np.int16), slope=0.5, intercept=-1)
    assert np.array_equal(read_volume(tmp_path / "a.nii"), VALUES * 0.5 - 1)
    write_nifti(tmp_path / "a.nii", VALUES.astype(np.int16), slope=0)  # the format's sign for no scaling
    assert np.array_equal(read_volume(tmp_path / "a.nii"), VALUES)


def test_read_volume__takes_a_fourth_axis_of_one(tmp_path):
    write_nifti(tmp_path / "a.nii", VALUES[..., None].astype(np.int16))
    assert read_volume(tmp_path / "a.nii").shape == (2, 3, 4)
    write_nifti(tmp_path / "a.nii", np.zeros((2, 3, 4, 5), np.int16))
    with pytest.raises(DataError, match=r"has shape \(2, 3, 4, 5\); expected one volume of three axes"):
        read_volume(tmp_path / "a.nii")


def test_read_volume__refuses_damaged_and_foreign_files(tmp_path):
    path = tmp_path / "a.nii.gz"
    with pytest.raises(DataError, match="not a readable NIfTI file"):
        read_volume(path)
    write_nifti(path, VALUES.astype(np.int16))
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    with pytest.raises(DataError, match="not a readable NIfTI file"):
        read_volume(path)
    plain = bytearray(gzip.decompress(whole))
    path.write_bytes(gzip.compress(plain[:-4]))
    with pytest.raises(DataError, match="is truncated: 396 bytes for 24 voxels of 2 bytes"):
        read_volume(path)
    struct.pack_into("<h", plain, 70, 128)
    path.write_bytes(gzip.compress(plain))
    with pytest.raises(DataError, match="holds values of NIfTI type 128; known are 2, 4"):
        read_volume(path)
    plain[344:348] = b"ni1\x00"
    path.write_bytes(gzip.compress(plain))
    with pytest.raises(DataError, match="no NIfTI-1 file with its values inside"):
        read_volume(path)
    path.write_bytes(gzip.compress(b"hello"))
    with pytest.raises(DataError, match="no NIfTI-1 file with its values inside"):
        read_volume(path)
