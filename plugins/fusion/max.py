"""The largest value at each place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import torch
from torch import Tensor

from robustmm import Component, Fusion, Options, hookimpl, where_present

from ._levels import Channels, by_level, check_equal_widths, with_presence


class Max(Fusion):
    """The element-wise maximum over the present modalities; an absent one never wins; zero where nothing is present.

    Where several are largest they share the gradient.

    Args:
        channels: Modality -> channels by level, the same for all modalities.

    Raises:
        ShapeError: the modalities' features differ in width.
    """

    def __init__(self, channels: Channels) -> None:
        levels = by_level("max", channels)
        check_equal_widths("max", levels)
        super().__init__(tuple(next(iter(widths.values())) for widths in levels))

    def forward(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> Tensor:
        """See `Fusion.forward`."""
        lowest = next(iter(features.values())).new_full((), -torch.inf)
        shown = [where_present(feature, present, lowest) for _, feature, present in with_presence(features, presence)]
        largest = reduce(torch.maximum, shown)
        return where_present(largest, presence.any(dim=1), largest.new_zeros(()))


@hookimpl
def robustmm_register_fusions(register: Callable[[Component], None]) -> None:
    """Offer the maximum."""
    register(
        Component(
            "max", Max, Options, "Largest of the present features, which must be of one width; no weights.", "standard"
        )
    )
