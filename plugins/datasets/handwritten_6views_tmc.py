"""The six-view digits with the split of the TMC paper, read from the authors' ``.mat`` file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from robustmm import ArrayDataset, Component, DataError, DataSplits, Options, hookimpl

from ._files import Notes, as_float, locate
from ._six_views import CLASSES, MODALITIES, NOTES, VIEWS

NAME = "handwritten_6views_tmc"
FILE = "handwritten_6views.mat"
OBTAIN = (
    "Obtain the file from the repository hanmenghan/TMC on GitHub (folder 'TMC ICLR/datasets'), "
    f"and store it under the name {FILE}."
)


class TmcOptions(Options):
    """Options of the data set.

    Args:
        root: Folder that holds the file; variables are expanded.
    """

    root: str = Field("$ROBUSTMM_DATA/handwritten_6views", description=f"folder that holds {FILE}")

    @classmethod
    def contract_example(cls) -> None:
        """None: the data are not shipped."""
        return


def build_handwritten_6views_tmc(root: str) -> DataSplits:
    """1600 training and 400 test rows, as in the published comparison.

    Raises:
        DataError: the file is not there, is not a MAT file, or has other keys or shapes.
    """
    path = locate(root, NAME, [FILE], OBTAIN) / FILE
    content = read_mat(path)
    train, test = (read_part(content, part, path) for part in ("train", "test"))
    notes: Notes = {
        "split": "of the TMC paper (ICLR 2021); validation is carved from train",
        "train": len(train),
        "test": len(test),
        **NOTES,
    }
    return DataSplits(MODALITIES, "classification", CLASSES, train, test, train_labels=train.target, notes=notes)


def read_mat(path: Path) -> Mapping[str, Any]:
    """Variables of a MATLAB 5 file.

    Raises:
        DataError: the file cannot be read.
    """
    from scipy.io import loadmat  # takes a moment: only where the file is read

    try:
        content: Mapping[str, Any] = loadmat(path)
    except (ValueError, TypeError, OSError, NotImplementedError) as error:
        raise DataError(f"{path}: not a readable MATLAB 5 file ({error})") from None
    return content


def read_part(content: Mapping[str, Any], part: str, path: Path) -> ArrayDataset:
    """The part ``train`` or ``test`` of the file's variables.

    Raises:
        DataError: a key is absent or has another shape, or a label lies outside 1 .. 10.
    """
    keys = [*(f"x{number}_{part}" for number in range(1, len(VIEWS) + 1)), f"gt_{part}"]
    absent = [key for key in keys if key not in content]
    if absent:
        raise DataError(f"{path} lacks {', '.join(absent)}; expected x1..x6 and gt, each with _train and _test")
    labels = np.asarray(content[f"gt_{part}"]).astype(np.int64).ravel() - 1
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= len(CLASSES):
        raise DataError(f"{path}: gt_{part} must hold labels 1 to 10")
    inputs: dict[str, Tensor] = {}
    for key, (name, size) in zip(keys, VIEWS.items(), strict=False):
        if content[key].shape != (len(labels), size):
            raise DataError(f"{path}: {key} ({name}) has shape {content[key].shape}, expected {(len(labels), size)}")
        inputs[name] = as_float(content[key])
    return ArrayDataset(inputs, torch.from_numpy(labels), [f"{part}{row:04d}" for row in range(len(labels))])


@hookimpl
def robustmm_register_datasets(register: Callable[[Component], None]) -> None:
    """Offer the TMC split."""
    register(
        Component(
            NAME,
            build_handwritten_6views_tmc,
            TmcOptions,
            "The six-view digits with the split of the TMC paper; reads the authors' file.",
            "Z. Han et al., Trusted Multi-View Classification, ICLR 2021; R. Duin, doi:10.24432/C5HC70",
        )
    )
