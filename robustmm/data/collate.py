"""Samples, some of them incomplete, to a `Batch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from robustmm.errors import DataError
from robustmm.types import Batch, Modality, Sample


class Collate:
    """Stack samples; fill absent modalities with zeros and say in ``observed`` what was there.

    Maps may have another height and width than their modality says, as where pictures are evaluated at a larger size
    than they were trained at; within a batch a modality has one size.

    Args:
        modalities: Columns of the run, in order; other keys of a sample are ignored.
    """

    def __init__(self, modalities: Sequence[Modality]) -> None:
        self.modalities = tuple(modalities)

    def __call__(self, samples: Sequence[tuple[int, Sample]] | Batch) -> Batch:
        """Collate (index, sample) pairs, or choose the columns of a batch that a data set made itself.

        Raises:
            DataError: a tensor has another shape than its modality, or a sample has no modality at all.
        """
        if isinstance(samples, Batch):
            return self._choose(samples)
        found = [[self._value(sample, modality) for _, sample in samples] for modality in self.modalities]
        observed = torch.tensor([[value is not None for value in column] for column in found]).T  # (B, M)
        self._refuse_empty(observed, [sample["id"] for _, sample in samples])
        ids = [sample["id"] for _, sample in samples]
        shapes = [_shape_of(column, modality, ids) for column, modality in zip(found, self.modalities, strict=True)]
        inputs = {
            modality.name: _stack(column, shape or self._absent_shape(modality, shapes))
            for modality, column, shape in zip(self.modalities, found, shapes, strict=True)
        }
        target = _stack_targets([sample for _, sample in samples])
        index = torch.tensor([index for index, _ in samples])
        return Batch(inputs, observed.contiguous(), target, tuple(sample["id"] for _, sample in samples), index)

    def _choose(self, batch: Batch) -> Batch:
        inputs = {modality.name: self._column(batch, modality) for modality in self.modalities}
        nowhere = torch.zeros(len(batch), dtype=torch.bool)
        known = dict(zip(batch.modalities, batch.observed.unbind(dim=1), strict=True))
        observed = torch.stack([known.get(name, nowhere) for name in inputs], dim=1)  # (B, M)
        self._refuse_empty(observed, batch.ids)
        return replace(batch, inputs=inputs, observed=observed)

    def _column(self, batch: Batch, modality: Modality) -> Tensor:
        """A modality of a ready batch, (B, ...); zeros where the data set has no such key, as for single samples."""
        value = batch.inputs.get(modality.name)
        if value is None:
            return torch.zeros(len(batch), *modality.shape)
        if not fits(tuple(value.shape[1:]), modality):
            raise DataError(_other_shape(batch.ids[0], value[0], modality))
        return value

    def _refuse_empty(self, observed: Tensor, ids: Sequence[str]) -> None:
        for id_, any_there in zip(ids, observed.any(dim=1).tolist(), strict=True):
            if not any_there:
                names = ", ".join(modality.name for modality in self.modalities)
                raise DataError(
                    f"sample '{id_}' has none of the modalities {names}; leave it out of the data set, "
                    "or choose data.modalities so that every sample has one"
                )

    def _value(self, sample: Sample, modality: Modality) -> Tensor | None:
        inputs: Mapping[str, Tensor | None] = sample["inputs"]
        value = inputs.get(modality.name)
        if value is not None and not fits(tuple(value.shape), modality):
            raise DataError(_other_shape(sample["id"], value, modality))
        return value

    def _absent_shape(self, modality: Modality, shapes: Sequence[tuple[int, ...] | None]) -> tuple[int, ...]:
        """The shape of a modality that no sample of the batch has: that of another map which is declared as large."""
        for other, shape in zip(self.modalities, shapes, strict=True):
            if shape is not None and len(shape) == 3 and other.shape[1:] == modality.shape[1:]:
                return (modality.shape[0], *shape[1:])
        return modality.shape


def fits(shape: tuple[int, ...], modality: Modality) -> bool:
    """Whether a value may have this shape: the declared one, or that of a map of another height and width."""
    if shape == modality.shape:
        return True
    return len(shape) == len(modality.shape) == 3 and shape[0] == modality.shape[0] and min(shape) > 0


def _other_shape(id_: str, value: Tensor, modality: Modality) -> str:
    return f"sample '{id_}': {modality.name} has shape {tuple(value.shape)}, expected {modality.shape}"


def _shape_of(column: Sequence[Tensor | None], modality: Modality, ids: Sequence[str]) -> tuple[int, ...] | None:
    """The one shape of a modality's values in a batch; None where no sample has it."""
    shapes = {tuple(value.shape): id_ for value, id_ in zip(column, ids, strict=True) if value is not None}
    if len(shapes) > 1:
        listed = ", ".join(f"'{id_}' {shape}" for shape, id_ in list(shapes.items())[:4])
        raise DataError(
            f"{modality.name} must have one shape in a batch, got {listed}; crop or resize it, "
            f"or set evaluation.batch_size: 1 where it is the evaluation that meets them"
        )
    return next(iter(shapes), None)


def _stack(column: Sequence[Tensor | None], shape: tuple[int, ...]) -> Tensor:
    if all(value is not None for value in column):
        return torch.stack([value for value in column if value is not None]).float()
    stacked = torch.zeros(len(column), *shape)
    for row, value in enumerate(column):
        if value is not None:
            stacked[row] = value
    return stacked


def _stack_targets(samples: Sequence[Sample]) -> Tensor:
    shapes = {tuple(sample["target"].shape) for sample in samples}
    if len(shapes) > 1:
        listed = ", ".join(f"'{sample['id']}' {tuple(sample['target'].shape)}" for sample in samples[:4])
        raise DataError(
            f"targets of one batch must have one shape, got {listed}; crop or resize the label maps, "
            f"or set evaluation.batch_size: 1 where it is the evaluation that meets them"
        )
    return torch.stack([sample["target"] for sample in samples])
