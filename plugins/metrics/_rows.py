"""What metrics over rows share: samples and pixels seen alike, and means that add up over batches and processes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from robustmm import Metric


def rows_of(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and labels by row.

    Args:
        logits: (B, C) or (B, C, ...).
        target: (B,) or (B, ...) int64; a pixel whose label is no class is void and left out.

    Returns:
        (R, C) float32 or float64, and (R,).
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if logits.ndim == 2:
        return logits, target
    rows, labels = logits.movedim(1, -1).flatten(0, -2), target.flatten()
    valid = (labels >= 0) & (labels < logits.shape[1])
    return rows[valid], labels[valid]


class RowMean(Metric):
    """Mean of a value over all rows; less is better unless a subclass says otherwise.

    Args:
        classes: Class names; index = label.
    """

    direction = "min"

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        self._sum = torch.zeros((), dtype=torch.float64)
        self._rows = 0

    @abstractmethod
    def values(self, logits: Tensor, target: Tensor) -> Tensor:
        """The value of each row, (R,), from (R, C) and (R,)."""

    def update(self, logits: Tensor, target: Tensor) -> None:
        """See `Metric.update`."""
        logits, target = rows_of(logits, target)
        self._sum = self._sum + self.values(logits, target).sum().cpu()
        self._rows += len(target)

    def merge(self, other: Metric) -> None:
        """See `Metric.merge`."""
        other = cast(RowMean, other)
        self._sum = self._sum + other._sum
        self._rows += other._rows

    def compute(self) -> float | None:
        """The mean; None without rows."""
        return self._sum.item() / self._rows if self._rows else None
