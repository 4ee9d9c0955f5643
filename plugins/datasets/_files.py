"""Where data lie, and how their files are read: embedded folders, roots given by option, arrays without pickle."""

from __future__ import annotations

import csv
import gzip
import os
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustmm import DataError

Array = NDArray[Any]
#: Facts for the result file.
Notes = dict[str, str | int | float]
#: Environment variable that names the folder of data sets which are not part of the project.
DATA_VARIABLE = "ROBUSTMM_DATA"


def embedded(dataset: str) -> Path:
    """Folder of a data set that is shipped with the package."""
    return Path(__file__).with_name("embedded") / dataset


def locate(root: str, dataset: str, needs: Sequence[str], obtain: str) -> Path:
    """Folder of a data set that is not shipped.

    Args:
        root: The option as given; ``~`` and variables such as ``$ROBUSTMM_DATA`` are expanded.
        dataset: Name for the messages.
        needs: Files that must lie in the folder.
        obtain: One sentence that says where the data come from.

    Raises:
        DataError: a variable is not set, or files are not there; names the files, the expected tree and ``obtain``.
    """
    tree = f"expected {root}/{{{', '.join(needs)}}}" if len(needs) > 1 else f"expected {root}/{needs[0]}"
    folder = expand(root, dataset, f"{tree}. {obtain}")
    absent = [name for name in needs if not (folder / name).is_file()]
    if absent:
        raise DataError(
            f"data set '{dataset}': {folder} {_lacks(folder, absent)}; {tree}. {obtain} "
            f"Then set {DATA_VARIABLE} or the option 'root'."
        )
    return folder


def _lacks(folder: Path, absent: Sequence[str]) -> str:
    return f"lacks {', '.join(absent)}" if folder.is_dir() else "is not a folder"


def expand(path: str, dataset: str, advice: str = "") -> Path:
    """Path with ``~`` and environment variables filled in.

    Raises:
        DataError: a variable in the path is not set.
    """
    expanded = os.path.expanduser(os.path.expandvars(path))
    unset = re.findall(r"\$\{?(\w+)\}?", expanded)
    if unset:
        repair = f"set it to the folder of your data sets, or give the path itself; {advice}".rstrip("; ")
        raise DataError(f"data set '{dataset}': {path}: environment variable {unset[0]} is not set; {repair}")
    return Path(expanded)


def read_arrays(path: Path) -> dict[str, Array]:
    """All arrays of an ``.npz`` file, never unpickling.

    Raises:
        DataError: the file is damaged or holds pickled objects.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable .npz file ({error})") from None


def as_float(array: Array) -> Tensor:
    """Float32 tensor with memory of its own."""
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32).copy())


class Row(dict[str, str]):
    """Cells by column, and the line of the file on which the row ends, counted from 1."""

    def __init__(self, cells: Mapping[str, str], line: int) -> None:
        super().__init__(cells)
        self.line = line


def read_table(path: Path, columns: Sequence[str] = ()) -> list[Row]:
    """Rows of a CSV file with a header, plain or gzip-compressed.

    Args:
        columns: Columns that must be there.

    Raises:
        DataError: a column is absent or named twice, a row has another number of cells, or the text is not UTF-8.
    """
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            header = list(reader.fieldnames or ())
            absent = [column for column in columns if column not in header]
            if len(set(header)) != len(header):
                raise DataError(f"{path}:1 names a column twice: {', '.join(header)}")
            if absent:
                raise DataError(f"{path}:1 lacks column {', '.join(absent)}; it has {', '.join(header) or 'none'}")
            return [_whole(row, path, reader.line_num) for row in reader]
    except FileNotFoundError:
        where = "" if path.is_absolute() else f"; a relative path starts from the current folder, {Path.cwd()}"
        raise DataError(f"{path}: no such file{where}") from None
    except (OSError, UnicodeDecodeError, csv.Error, EOFError) as error:
        raise DataError(f"{path}: not a readable CSV file ({error})") from None


def _whole(row: Mapping[Any, Any], path: Path, line: int) -> Row:
    more = None in row  # the reader's key for cells beyond the header
    if more or None in row.values():
        raise DataError(f"{path}:{line} has {'more' if more else 'fewer'} cells than the header")
    return Row(row, line)


def read_matrix(path: Path) -> tuple[list[str], list[str], Array]:
    """A CSV table of numbers whose first column names the row.

    Returns:
        Row names, feature names, and the values, (rows, features) float32.

    Raises:
        DataError: a cell is not a finite number.
    """
    rows = read_table(path)
    names = list(rows[0])[1:] if rows else []
    try:
        values = np.array([[float(row[name]) for name in names] for row in rows], dtype=np.float32)
    except ValueError as error:
        raise DataError(f"{path}: {error}; every column but the first holds numbers") from None
    if not np.isfinite(values).all():
        line = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0]) + 2
        raise DataError(f"{path}:{line} has a value that is not finite")
    return [next(iter(row.values())) for row in rows], names, values
