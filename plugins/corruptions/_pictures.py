"""Corruptions of ImageNet-C are defined for values of 0 to 1; here raw values are mapped there and back."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from ._levels import Levelled

#: Shorter side in pixels of the pictures for which ImageNet-C's widths are stated.
REFERENCE_SIDE = 224


class UnitRange(Levelled):
    """Breaks values of which the training part's smallest is 0 and its largest 1.

    What comes out is clipped to that range, or to the sample's own where that is wider. Values that were not measured
    are 0 on the way, with ``valid`` saying which, and stay as they were in the end.
    """

    def at_level(self, value: Tensor, level: float, generator: torch.Generator) -> Tensor:
        """See `Levelled.at_level`."""
        width = (self.spread.high - self.spread.low) or 1.0
        valid = self.valid(value)
        unit = ((value - self.spread.low) / width) * valid
        broken = self.unit_at_level(unit, level, generator, valid)
        return broken.clamp(min(float(unit.min()), 0.0), max(float(unit.max()), 1.0)) * width + self.spread.low

    @abstractmethod
    def unit_at_level(self, unit: Tensor, level: float, generator: torch.Generator, valid: Tensor) -> Tensor:
        """(D, H, W) in [0, 1], as a rule, to the same, not yet clipped."""


def normal_like(value: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of a value's shape."""
    return torch.randn(value.shape, generator=generator)


def uniform_like(value: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform numbers in [0, 1) of a value's shape."""
    return torch.rand(value.shape, generator=generator)


def scale_of(value: Tensor, reference: int = REFERENCE_SIDE) -> float:
    """Shorter side of a picture (D, H, W) in units of a reference picture's."""
    return min(value.shape[-2:]) / reference


def filtered(unit: Tensor, valid: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Weighted means of a picture's valid values.

    Args:
        unit: (D, H, W), 0 where it is not valid.
        valid: (D, H, W) bool.
        rows: (H, H) weights along the height, each row with sum 1.
        columns: (W, W) likewise along the width.

    Returns:
        (D, H, W); 0 where no valid value has a weight.
    """
    total = rows @ unit @ columns.T
    if valid.all():
        return total
    weight = rows @ valid.float() @ columns.T
    return total / weight.clamp_min(torch.finfo(torch.float32).tiny)
