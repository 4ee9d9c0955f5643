"""MATLAB files of both kinds: version 5 through SciPy, version 7.3 (which is HDF5) sample by sample through h5py."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robustmm import DataError

from ._cells import Unreadable
from ._files import Array

#: Path -> process that opened the file, and the file.
_OPEN: dict[Path, tuple[int, Any]] = {}


def load_matlab(path: Path, *names: str) -> list[Any]:
    """Variables of a file of version 5, structures as objects with attributes, axes of length 1 removed.

    Raises:
        DataError: the file is of another kind or damaged, or lacks a variable.
    """
    import scipy.io.matlab

    try:
        found = scipy.io.loadmat(path, variable_names=names, squeeze_me=True, struct_as_record=False)
    except NotImplementedError:  # SciPy's answer to version 7.3
        raise DataError(f"{path}: a MATLAB file of version 7.3, expected version 5, as it is published") from None
    except (scipy.io.matlab.MatReadError, zlib.error, OSError, ValueError, TypeError, EOFError, KeyError) as error:
        raise DataError(f"{path}: not a readable MATLAB file ({error})") from None
    absent = [name for name in names if name not in found]
    if absent:
        raise DataError(f"{path} lacks {', '.join(absent)}; is it the published file?")
    return [found[name] for name in names]


@dataclass(frozen=True)
class Slot:
    """One entry along the first axis of an array in a file of version 7.3.

    Args:
        path: The file.
        key: Name of the array; groups are parted by ``/``.
        index: Counted from 0.
    """

    path: Path
    key: str
    index: int

    def __str__(self) -> str:
        return f"{self.path}:{self.key}[{self.index}]"

    def read(self) -> Array:
        """The entry as h5py shows it: MATLAB's axes in reverse order. A reference is followed.

        Raises:
            Unreadable: the file is damaged, or has no such entry.
        """
        try:
            file = open_hdf5(self.path)
            value = file[self.key][self.index]
            if value.dtype == object:  # a cell of MATLAB: a reference to the array
                value = file[value.flat[0]][()]
        except (OSError, KeyError, ValueError, IndexError, RuntimeError) as error:
            raise Unreadable(f"not readable ({error})") from None
        array: Array = np.asarray(value)
        return array


def open_hdf5(path: Path) -> Any:
    """The open file, one per process.

    A loader's worker that is forked inherits the file and its position in it; it must not read through it, so it closes
    its copy and opens its own.
    """
    import h5py

    opened_by, file = _OPEN.get(path, (0, None))
    if file is not None and opened_by == os.getpid() and file:  # a closed file is false
        return file
    if file is not None:
        file.close()
    file = h5py.File(path, "r")
    _OPEN[path] = os.getpid(), file
    return file


def shape_of(path: Path, key: str) -> tuple[int, ...]:
    """Shape of an array in a file of version 7.3, in h5py's order of axes.

    Raises:
        DataError: the file is damaged or of another kind, or has no such array.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return tuple(file[key].shape)
    except KeyError:
        raise DataError(f"{path} lacks '{key}'; is it the published file?") from None
    except OSError as error:
        raise DataError(f"{path}: not a readable MATLAB file of version 7.3 ({error})") from None


def read_texts(path: Path, key: str) -> list[str]:
    """A cell array of texts in a file of version 7.3.

    Raises:
        DataError: the file is damaged, or has no such array.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return ["".join(map(chr, file[cell][()].flatten())) for cell in file[key][()].flatten()]
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise DataError(f"{path}: '{key}' is not a readable list of texts ({error})") from None
