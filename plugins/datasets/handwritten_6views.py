"""Handwritten digits seen as six feature vectors (UCI "Multiple Features"), shipped with the package.

The original table holds six digits twice; the rows are kept as published, so a pair may lie on both sides of the split.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from robustmm import ArrayDataset, Component, DataSplits, Options, generator_for, hookimpl

from ._files import Notes, as_float, embedded, read_arrays
from ._six_views import CLASSES, MODALITIES, NOTES, VIEWS

NAME = "handwritten_6views"
TEST_SHARE = 0.2


class SixViewsOptions(Options):
    """Options of the data set.

    Args:
        split_seed: Seed of the train/test split alone; one seed names one split on every machine.
    """

    split_seed: int = Field(0, ge=0, description="seed of the 80/20 train/test split; equal seeds give equal splits")


def read_views() -> tuple[dict[str, Tensor], Tensor]:
    """All 2000 rows: view -> (2000, D) float32 in raw units, and the digits, (2000,) int64, 200 of each in order."""
    views = {name: as_float(read_arrays(embedded(NAME) / f"{name}.npz")["values"]) for name in VIEWS}
    return views, torch.arange(10).repeat_interleave(200)


def stratified_split(labels: Tensor, test_share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw the same share of every class for testing.

    Args:
        labels: (N,) int64.
        test_share: In (0, 1); the count of each class is rounded to the nearest whole.

    Returns:
        Sorted row numbers of the training and of the test part.
    """
    in_test = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(int(labels.max()) + 1):
        rows = (labels == label).nonzero().flatten()
        drawn = torch.randperm(len(rows), generator=generator)[: round(test_share * len(rows))]
        in_test[rows[drawn]] = True
    return (~in_test).nonzero().flatten(), in_test.nonzero().flatten()


def build_handwritten_6views(split_seed: int) -> DataSplits:
    """1600 training and 400 test rows, the same share of every digit."""
    views, labels = read_views()
    parts = stratified_split(labels, TEST_SHARE, generator_for(NAME, "split", split_seed))
    train, test = (
        ArrayDataset(
            {name: values[rows] for name, values in views.items()},
            labels[rows],
            [f"digit{row:04d}" for row in rows.tolist()],
        )
        for rows in parts
    )
    notes: Notes = {
        "split": f"stratified 80/20, split_seed {split_seed}; validation is carved from train",
        "train": len(train),
        "test": len(test),
        **NOTES,
    }
    return DataSplits(MODALITIES, "classification", CLASSES, train, test, train_labels=train.target, notes=notes)


@hookimpl
def robustmm_register_datasets(register: Callable[[Component], None]) -> None:
    """Offer the six views."""
    register(
        Component(
            NAME,
            build_handwritten_6views,
            SixViewsOptions,
            "2000 handwritten digits as six feature vectors; shipped, no download.",
            "R. Duin, UCI Multiple Features, 1998, doi:10.24432/C5HC70 (CC BY 4.0)",
        )
    )
