"""CUB and Scene-15 as published feature vectors, which papers on trusted fusion compare on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from robustmm import ArrayDataset, Component, DataError, DataSplits, Modality, Options, generator_for, hookimpl

from ._files import Notes, as_float, locate
from .handwritten_6views import TEST_SHARE, stratified_split
from .handwritten_6views_tmc import read_mat

NAME = "multiview_features"


@dataclass(frozen=True)
class Published:
    """One of the files.

    Args:
        file: Its name.
        views: View -> number of features, in the order of the file's cells.
        labels: Variable that holds the labels, from 1.
        samples: Rows.
        classes: Number of classes.
    """

    file: str
    views: dict[str, int]
    labels: str
    samples: int
    classes: int


#: The papers do not say which descriptor each view of Scene-15 is, so its views are numbered.
SETS = {
    "cub": Published("cub_googlenet_doc2vec_c10.mat", {"image": 1024, "text": 300}, "gt", 600, 10),
    "scene15": Published("Scene-15.mat", {"view1": 20, "view2": 59, "view3": 40}, "Y", 4485, 15),
}
OBTAIN = "Obtain the file from the repository XLearning-SCU/2023-IJCAI-ProImp on GitHub, folder 'data'."


class MultiviewOptions(Options):
    """Options of the data set.

    Args:
        collection: Which of the published files.
        root: Folder that holds it; variables are expanded.
        split_seed: Seed of the train/test split alone.
    """

    collection: Literal["cub", "scene15"] = Field(
        "scene15", description="cub: ten birds as image and text features; scene15: fifteen scenes in three descriptors"
    )
    root: str = Field("$ROBUSTMM_DATA/multiview_features", description="folder that holds the file")
    split_seed: int = Field(0, ge=0, description="seed of the 80/20 train/test split; equal seeds give equal splits")

    @classmethod
    def contract_example(cls) -> None:
        """None: the data are not shipped."""
        return


def read_views(collection: Literal["cub", "scene15"], root: str) -> tuple[dict[str, Tensor], Tensor]:
    """All rows: view -> (N, D) float32 in raw units, and labels (N,) int64 from 0.

    Raises:
        DataError: the file is not there, is not a MAT file, or holds something else.
    """
    known = SETS[collection]
    path = locate(root, NAME, [known.file], OBTAIN) / known.file
    content = read_mat(path)
    absent = [key for key in ("X", known.labels) if key not in content]
    if absent:
        raise DataError(f"{path} lacks {', '.join(absent)}; expected the cells X and the labels {known.labels}")
    cells = list(content["X"].ravel())
    shapes = [tuple(cell.shape) for cell in cells]
    expected = [(known.samples, size) for size in known.views.values()]
    if shapes != expected:
        raise DataError(f"{path}: X holds views of shapes {shapes}, expected {expected}")
    labels = np.asarray(content[known.labels]).astype(np.int64).ravel() - 1
    if len(labels) != known.samples or labels.min() < 0 or labels.max() >= known.classes:
        raise DataError(f"{path}: {known.labels} must hold {known.samples} labels, 1 to {known.classes}")
    return {name: as_float(cell) for name, cell in zip(known.views, cells, strict=True)}, torch.from_numpy(labels)


def build_multiview_features(collection: Literal["cub", "scene15"], root: str, split_seed: int) -> DataSplits:
    """80 % of each class for training, from which validation is carved, and the rest for the test."""
    views, labels = read_views(collection, root)
    rows = stratified_split(labels, TEST_SHARE, generator_for(NAME, collection, "split", split_seed))
    train, test = (
        ArrayDataset({name: x[own] for name, x in views.items()}, labels[own], [f"{row:04d}" for row in own.tolist()])
        for own in rows
    )
    notes: Notes = {
        "split": f"80/20 by class, split_seed {split_seed}; the papers do not state theirs",
        "licence": "features of images that others own; not shipped",
        "train": len(train),
        "test": len(test),
    }
    modalities = tuple(Modality(name, "vector", (x.shape[1],)) for name, x in views.items())
    classes = tuple(str(number) for number in range(1, SETS[collection].classes + 1))
    return DataSplits(modalities, "classification", classes, train, test, train_labels=train.target, notes=notes)


@hookimpl
def robustmm_register_datasets(register: Callable[[Component], None]) -> None:
    """Offer CUB and Scene-15."""
    register(
        Component(
            NAME,
            build_multiview_features,
            MultiviewOptions,
            "CUB (image and text) and Scene-15 (three descriptors) as feature vectors; reads the published files.",
            "C. Wah et al., CUB-200-2011; L. Fei-Fei and P. Perona, CVPR 2005; features of H. Li et al., IJCAI 2023",
        )
    )
