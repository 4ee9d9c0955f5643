"""What the samples of a part hold, added up sample by sample: labels by class, quantities, values by modality."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustmm.types import VOID


@dataclass
class LabelTally:
    """Labels of one part.

    Args:
        per_class: Samples, or pixels of label maps, of each class, (C,) int64; labels of no class are not counted.
        maps: Label maps in which each class occurs, (C,) int64; of labels of whole samples equal to ``per_class``.
        void: Void pixels.
        all_void: Label maps without any other pixel.
        sizes: (H, W) of label maps -> how many.
    """

    per_class: Tensor
    maps: Tensor
    void: int = 0
    all_void: int = 0
    sizes: Counter[tuple[int, ...]] = field(default_factory=Counter)

    @classmethod
    def of(cls, num_classes: int) -> LabelTally:
        """Nothing counted yet."""
        per_class, maps = torch.zeros(2, num_classes, dtype=torch.int64)
        return cls(per_class, maps)

    def add(self, target: Tensor) -> Tensor:
        """Count a label () or a label map (H, W) and return the labels in it that are neither a class nor void."""
        count = len(self.per_class)
        valid = (target >= 0) & (target < count)
        void = (target == VOID) & ~valid if target.ndim else torch.zeros_like(valid)
        found = target[valid].flatten().bincount(minlength=count)
        self.per_class += found
        self.maps += found > 0
        if target.ndim:
            self.sizes[tuple(target.shape)] += 1
            self.void += int(void.sum())
            self.all_void += int(void.all())
        return target[~valid & ~void].flatten()


class QuantityTally:
    """Target quantities of one part, for regression.

    Args:
        count: T.

    Attributes:
        samples: Targets that were counted.
    """

    def __init__(self, count: int) -> None:
        self.samples = 0
        self._sums = torch.zeros(2, count, dtype=torch.float64)  # of values and of squares, about the first target
        self._first = torch.zeros(count, dtype=torch.float64)
        self._range = torch.tensor([[math.inf], [-math.inf]], dtype=torch.float64).expand(2, count)

    def add(self, target: Tensor) -> None:
        """Count a target () or (T,)."""
        values = target.double().reshape(-1)
        self._first = values if self.samples == 0 else self._first
        beyond = values - self._first
        self.samples += 1
        self._sums = self._sums + torch.stack([beyond, beyond.square()])
        self._range = torch.stack([self._range[0].minimum(values), self._range[1].maximum(values)])

    def result(self) -> list[dict[str, float | None]]:
        """``mean``, ``deviation``, ``lowest`` and ``highest`` of each quantity; None without a sample."""
        mean, square = self._sums / max(self.samples, 1)
        deviation = (square - mean.square()).clamp_min(0).sqrt()
        table = torch.stack([self._first + mean, deviation, *self._range])  # (4, T)
        names = ("mean", "deviation", "lowest", "highest")
        return [
            {name: value if self.samples else None for name, value in zip(names, column, strict=True)}
            for column in table.T.tolist()
        ]


@dataclass
class ValueTally:
    """Raw values of one modality in one part.

    Args:
        not_measured: Value that says so; it is counted by itself. See `robustmm.Scaling`.
        sizes: Spatial size, in the file where the data set tells it, -> samples; empty for vectors.
        measured: Values that are finite and measured.
        invalid: Values that say "not measured".
        lowest: Of the measured values; None without any.
        highest: Likewise.
    """

    not_measured: float | None = None
    sizes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    measured: int = 0
    invalid: int = 0
    lowest: float | None = None
    highest: float | None = None
    _sum: float = 0.0

    def add(self, value: Tensor, size: tuple[int, ...] | None = None) -> None:
        """Count the value of one sample, (D, ...) of any type; ``size`` where it is not the value's own."""
        if value.ndim > 1:
            self.sizes[tuple(value.shape[1:]) if size is None else size] += 1
        use = value.isfinite()
        if self.not_measured is not None:
            invalid = value == self.not_measured
            self.invalid += int(invalid.sum())
            use &= ~invalid
        known = value[use]
        if not known.numel():
            return
        low, high = (float(bound) for bound in known.aminmax())
        self.lowest = min(low, math.inf if self.lowest is None else self.lowest)
        self.highest = max(high, -math.inf if self.highest is None else self.highest)
        self.measured += known.numel()
        self._sum += float(known.sum(dtype=torch.float64))

    @property
    def mean(self) -> float | None:
        """Of the measured values; None without any."""
        return self._sum / self.measured if self.measured else None

    @property
    def invalid_share(self) -> float | None:
        """Share of values that were not measured; None where no value says so, or without values."""
        total = self.measured + self.invalid
        return self.invalid / total if self.not_measured is not None and total else None
