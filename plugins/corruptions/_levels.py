"""What a severity means as a number: five of them in the options, the constants of the published test by default."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustmm import Corruption, Modality, Spread

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
#: One number for each severity.
Positives = tuple[Positive, Positive, Positive, Positive, Positive]
Shares = tuple[Share, Share, Share, Share, Share]
Quality = Annotated[int, Field(ge=1, le=95)]
Qualities = tuple[Quality, Quality, Quality, Quality, Quality]

HENDRYCKS = "Hendrycks and Dietterich, ICLR 2019, arXiv:1903.12261 (ImageNet-C)"


class Levelled(Corruption):
    """A corruption whose severity is a number from its options.

    Args:
        modality: See `robustmm.Corruption`.
        spread: See `robustmm.Corruption`.
        levels: The number of each severity.
    """

    def __init__(self, modality: Modality, spread: Spread, levels: tuple[float, ...]) -> None:
        super().__init__(modality, spread)
        self.levels = levels

    def corrupt(self, value: Tensor, severity: int, generator: torch.Generator, other: Tensor | None) -> Tensor:
        """See `Corruption.corrupt`."""
        return self.at_level(value, self.levels[severity - 1], generator)

    @abstractmethod
    def at_level(self, value: Tensor, level: float, generator: torch.Generator) -> Tensor:
        """The value, broken to the degree that a level says."""


def mean_of_valid(value: Tensor, valid: Tensor) -> Tensor:
    """Mean of each channel's valid values, (D, 1, ...) from (D, ...); 0 where there is none."""
    axes = tuple(range(1, value.dim()))
    count = valid.sum(dim=axes, keepdim=True).clamp_min(1)
    return (value * valid).sum(dim=axes, keepdim=True) / count
