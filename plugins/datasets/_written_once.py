"""Preparing a data set: every file is written whole or not at all, so that a second call goes on where one stopped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from robustmm import DataError, DataSplits, Track

from ._cells import Unreadable
from ._files import Array
from ._images import import_cv2, read_colour, read_npy


def write_array(path: Path, make: Callable[[], Array]) -> None:
    """Write a PNG or ``.npy`` file, unless it is there and can be read.

    Args:
        path: The suffix says what is written.
        make: The values: (H, W) of 8 or 16 bits, or (H, W, 3) uint8 in the order red, green, blue, for a PNG.
    """
    if not _whole(path):
        write_bytes(path, _encoded(path, make()))


def _encoded(path: Path, values: Array) -> bytes:
    if path.suffix == ".npy":
        buffer = BytesIO()
        np.save(buffer, values)
        return buffer.getvalue()
    picture = values if values.ndim == 2 else np.ascontiguousarray(values[:, :, ::-1])
    done, encoded = import_cv2().imencode(".png", picture)
    assert done, "values of a PNG are 8 or 16 bits"
    return bytes(encoded)


def _whole(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        read_npy(path) if path.suffix == ".npy" else read_colour(path)
    except Unreadable:
        return False
    return True


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file under another name and rename it, so that it is never there by half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    os.replace(part, path)


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write a list, one entry per line."""
    write_bytes(path, ("\n".join(lines) + "\n").encode())


def place_copy(source: Path, target: Path) -> None:
    """Have the file at ``target``: as a second name where the disk allows it, as a copy otherwise.

    Raises:
        DataError: the source is not there.
    """
    if not source.is_file():
        raise DataError(f"{source}: there is no such file; the download is not complete")
    if target.is_file() and target.stat().st_size == source.stat().st_size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), part)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, part)
    os.replace(part, target)


def read_back(splits: DataSplits, track: Track) -> None:
    """Read every sample of every part.

    Raises:
        DataError: a file that was written cannot be read, or holds a label that is no class.
    """
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    for name, part in parts.items():
        if part is not None:
            for index in track(f"checking {name}", range(len(part))):
                part[index]
