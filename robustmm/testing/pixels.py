"""A small dense task, so that contracts can be checked on label maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from robustmm.metrics.classification import is_degenerate
from robustmm.metrics.confusion import confusion_matrix, hits, predicted_class, predicted_counts, true_counts
from robustmm.tasks.task import Metrics, Rows, Task


class PixelMetrics(Metrics):
    """Mean IoU over the classes that occur."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.confusion = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64)
        self.count = 0

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch."""
        counts = confusion_matrix(predicted_class(logits).flatten(), target.flatten(), self.num_classes)
        self.confusion = self.confusion + counts.cpu()
        self.count += len(target)

    def merge(self, other: Metrics) -> None:
        """Add what another process counted."""
        other = cast(PixelMetrics, other)
        self.confusion = self.confusion + other.confusion
        self.count += other.count

    def compute(self) -> dict[str, float | None]:
        """``miou``."""
        found = hits(self.confusion)
        union = true_counts(self.confusion) + predicted_counts(self.confusion) - found
        return {"miou": float((found / union)[union > 0].mean()) if bool(union.any()) else None}

    @property
    def degenerate(self) -> bool:
        """See `Metrics.degenerate`."""
        return is_degenerate(self.confusion) or bool(self.confusion[:, -1].any())


class PixelTask(Task):
    """A class for every pixel, cross-entropy, all pixels valid."""

    default_head = "linear"
    dense = True
    score = "miou"

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        self.directions = {"miou": "max"}

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean over pixels."""
        return cross_entropy(logits, target)

    def sample_losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean over the pixels of each sample."""
        return cross_entropy(logits, target, reduction="none").flatten(1).mean(dim=1)

    def masked_loss(self, logits: Tensor, target: Tensor, keep: Tensor) -> Tensor:
        """Mean over the kept samples."""
        losses = self.sample_losses(logits, target)
        return losses.masked_fill(~keep, 0.0).sum() / keep.sum().clamp_min(1)

    def rows(self, logits: Tensor, target: Tensor) -> Rows:
        """Every pixel is a row."""
        sample = torch.arange(len(target), device=target.device).view(-1, 1, 1).expand_as(target)
        return Rows(logits.movedim(1, -1).flatten(0, -2), target.flatten(), sample.flatten())

    def metrics(self) -> PixelMetrics:
        """Fresh counters."""
        return PixelMetrics(self.num_outputs)
