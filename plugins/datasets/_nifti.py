"""Volumes in NIfTI-1 files, as far as plain scalar volumes go; no library is needed for that."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from robustmm import DataError

from ._files import Array

HEADER = 348
#: Data type codes of the format that hold one number per voxel.
TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}


def read_volume(path: Path) -> Array:
    """Values of a ``.nii`` or ``.nii.gz`` file, (X, Y, Z), scaled as the header says.

    Raises:
        DataError: the file is absent, damaged, or no NIfTI-1 file of one scalar volume.
    """
    data = _bytes(path)
    order = _byte_order(data, path)
    dimensions = struct.unpack_from(order + "8h", data, 40)
    shape = tuple(dimensions[1 : dimensions[0] + 1]) if 1 <= dimensions[0] <= 7 else ()
    if len(shape) < 3 or any(extent != 1 for extent in shape[3:]) or min(shape) < 1:
        raise DataError(f"{path}: has shape {shape}; expected one volume of three axes")
    (code,) = struct.unpack_from(order + "h", data, 70)
    if code not in TYPES:
        raise DataError(f"{path}: holds values of NIfTI type {code}; known are {', '.join(map(str, TYPES))}")
    offset, slope, intercept = struct.unpack_from(order + "3f", data, 108)
    kind = np.dtype(order + TYPES[code])
    count = math.prod(shape)
    if len(data) < int(offset) + count * kind.itemsize:
        raise DataError(f"{path}: is truncated: {len(data)} bytes for {count} voxels of {kind.itemsize} bytes")
    values: Array = np.frombuffer(data, kind, count, int(offset)).reshape(shape[:3], order="F")
    if slope and np.isfinite(slope) and (slope, intercept) != (1.0, 0.0):
        return values * np.float32(slope) + np.float32(intercept)
    return values


def _bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a readable NIfTI file ({error})") from None


def _byte_order(data: bytes, path: Path) -> str:
    for order in "<>":
        if len(data) >= HEADER and struct.unpack_from(order + "i", data, 0)[0] == HEADER:
            if data[344:347] != b"n+1":
                break
            return order
    raise DataError(f"{path}: no NIfTI-1 file with its values inside (such as .nii.gz)")
