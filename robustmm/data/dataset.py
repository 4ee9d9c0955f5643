"""What a data set plugin hands over: `DataSplits`, made of map-style data sets that return a `Sample`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from robustmm.errors import DataError
from robustmm.masks import where_present
from robustmm.types import Batch, Modality, Sample


@runtime_checkable
class Dataset(Protocol):
    """Map-style data set. Samples may lack modalities: the key is missing or None.

    A training set may also have ``augment(sample, generator) -> Sample``; it is called in training alone, with a
    generator seeded from (seed, epoch, index), so that workers and resumed runs draw the same. Where it also brings
    samples to one size, ``at_training_size(sample) -> Sample`` does that alone. Where reading inputs is slow it may
    have ``target(index) -> Tensor``, which reads the label alone, and ``only(names) -> Dataset``, the same samples with
    these modalities.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@dataclass(frozen=True)
class DataSplits:
    """A data set ready for training and evaluation.

    Args:
        modalities: In column order.
        task: Name of the task that fits, such as ``classification``.
        classes: Class names; index = label. Of regression the names of the target quantities.
        train: Training part.
        test: Test part; never used for selection.
        validation: Validation part; None where the data set has none, then it is carved from ``train``.
        train_labels: (N,) int64 labels of ``train`` for stratified carving; None where that has no meaning.
        train_groups: (N,) int64 group of each training sample (subject, place, recording); carving keeps a group on
            one side.
        colours: Red, green and blue of each class, 0 to 255, for pictures; None lets the report choose.
        notes: Facts for the result file: which split, how many samples were left out, licence, citation.
    """

    modalities: tuple[Modality, ...]
    task: str
    classes: tuple[str, ...]
    train: Dataset
    test: Dataset
    validation: Dataset | None = None
    train_labels: Tensor | None = None
    train_groups: Tensor | None = None
    colours: tuple[tuple[int, int, int], ...] | None = None
    notes: Mapping[str, str | int | float] = field(default_factory=dict)


class ArrayDataset:
    """Samples that fit in memory, as one tensor per modality.

    Args:
        inputs: Modality -> (N, ...) tensor in the modality's raw units.
        target: (N,) int64, or (N, H, W); of regression float, (N,) or (N, T).
        ids: N stable names.
        observed: (N, M) bool in the order of ``inputs``; None where everything is there.
        augment: Optional ``(sample, generator) -> sample``, for training.

    Raises:
        DataError: the lengths differ.
    """

    def __init__(
        self,
        inputs: Mapping[str, Tensor],
        target: Tensor,
        ids: Sequence[str],
        observed: Tensor | None = None,
        augment: Callable[[Sample, torch.Generator], Sample] | None = None,
    ) -> None:
        lengths = {name: len(value) for name, value in inputs.items()} | {"target": len(target), "ids": len(ids)}
        if observed is not None:
            lengths["observed"] = len(observed)
        if len(set(lengths.values())) != 1:
            raise DataError(f"arrays of one data set must have one length, got {lengths}")
        self.inputs = dict(inputs)
        self.target = target
        self.ids = tuple(ids)
        self.observed = torch.ones(len(target), len(self.inputs), dtype=torch.bool) if observed is None else observed
        if augment is not None:
            self.augment = augment

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int, /) -> Sample:
        shown = self.observed[index].tolist()
        inputs = {
            name: value[index] if there else None
            for (name, value), there in zip(self.inputs.items(), shown, strict=True)
        }
        return {"inputs": inputs, "target": self.target[index], "id": self.ids[index]}

    def take(self, indices: Sequence[int]) -> Batch:
        """Several samples at once, by slicing; equal to collating them one by one."""
        rows = torch.tensor(indices)
        observed = self.observed[rows]
        inputs = {
            name: where_present(value[rows].float(), observed[:, column], torch.zeros(()))
            for column, (name, value) in enumerate(self.inputs.items())
        }
        return Batch(inputs, observed, self.target[rows], tuple(self.ids[index] for index in indices), rows)
