"""The plain sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import torch
from torch import Tensor

from robustmm import Component, Fusion, Options, hookimpl, where_present

from ._levels import Channels, by_level, check_equal_widths, with_presence


class Add(Fusion):
    """``sum of f_m`` over the present modalities, without weights; zero where nothing is present.

    Args:
        channels: Modality -> channels by level, the same for all modalities.

    Raises:
        ShapeError: the modalities' features differ in width.
    """

    def __init__(self, channels: Channels) -> None:
        levels = by_level("add", channels)
        check_equal_widths("add", levels)
        super().__init__(tuple(next(iter(widths.values())) for widths in levels))

    def forward(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> Tensor:
        """See `Fusion.forward`."""
        return reduce(torch.add, self.summands(level, features, presence).values())

    def summands(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> dict[str, Tensor]:
        """Each modality's feature, zero in rows where it is absent."""
        return {
            name: where_present(feature, present, feature.new_zeros(()))
            for name, feature, present in with_presence(features, presence)
        }


@hookimpl
def robustmm_register_fusions(register: Callable[[Component], None]) -> None:
    """Offer the plain sum."""
    register(
        Component(
            "add", Add, Options, "Sum of the present features, which must be of one width; no weights.", "standard"
        )
    )
