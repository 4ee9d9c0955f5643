"""Sum of linear projections."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import torch
from pydantic import Field
from torch import Tensor

from robustmm import Component, Fusion, Options, hookimpl, where_present

from ._levels import DIM_HELP, Channels, Projections, by_level, fused_widths, with_presence


class SumOptions(Options):
    """Options of the fusion.

    Args:
        dim: Width of the fused feature; None keeps that of the first modality at each level.
    """

    dim: int | None = Field(128, gt=0, description=DIM_HELP)


class Sum(Fusion):
    """``sum of W_m f_m + b_m`` over the present modalities; an absent one drops its term with the bias.

    Args:
        channels: Modality -> channels by level.
        dim: Width of the fused feature at every level, or None for that of the first modality.
    """

    def __init__(self, channels: Channels, dim: int | None) -> None:
        levels = by_level("sum", channels)
        super().__init__(fused_widths(levels, dim))
        self.projections = Projections(levels, self.channels)

    def forward(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> Tensor:
        """See `Fusion.forward`; zero where nothing is present."""
        return reduce(torch.add, self.summands(level, features, presence).values())

    def summands(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> dict[str, Tensor]:
        """Each modality's term, zero in rows where it is absent."""
        terms = {}
        for name, feature, present in with_presence(features, presence):
            projected = self.projections(level, name, feature)
            terms[name] = where_present(projected, present, projected.new_zeros(()))
        return terms


@hookimpl
def robustmm_register_fusions(register: Callable[[Component], None]) -> None:
    """Offer the sum."""
    register(Component("sum", Sum, SumOptions, "Sum of one linear projection per present modality.", "standard"))
