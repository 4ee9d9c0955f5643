"""The contract of a metric that a plugin adds beside the task's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

from torch import Tensor


class Metric(ABC):
    """A score over a split, from logits and targets.

    In results it stands under its component's name, or under the option ``label`` where the component has one.

    Args:
        classes: Class names; index = label.

    Attributes:
        direction: Whether ``max`` or ``min`` is better.
    """

    direction: Literal["max", "min"] = "max"

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)

    @abstractmethod
    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch: (B, C) or (B, C, H, W) float logits, (B,) or (B, H, W) int64 labels, on one device."""

    @abstractmethod
    def merge(self, other: Metric) -> None:
        """Add what another process counted."""

    @abstractmethod
    def compute(self) -> float | None:
        """The score; None where it has no meaning on what was seen."""
