"""Concatenation along the channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from robustmm import Component, Fusion, Options, hookimpl

from ._levels import Channels, by_level


class Concat(Fusion):
    """``[f_1 | ... | f_M]`` at each level; what the missing policy left of an absent modality stays, zeros by default.

    Behind a linear head the blocks give exact unimodal logits.

    Args:
        channels: Modality -> channels by level.
    """

    def __init__(self, channels: Channels) -> None:
        super().__init__(tuple(sum(widths.values()) for widths in by_level("concat", channels)))

    def forward(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> Tensor:
        """See `Fusion.forward`."""
        return torch.cat(list(features.values()), dim=1)

    def summands(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> dict[str, Tensor]:
        """Each modality's block with zeros for all others."""
        return {
            name: torch.cat([f if other == name else torch.zeros_like(f) for other, f in features.items()], dim=1)
            for name in features
        }


@hookimpl
def robustmm_register_fusions(register: Callable[[Component], None]) -> None:
    """Offer concatenation."""
    register(
        Component("concat", Concat, Options, "Features side by side; an absent one leaves its block empty.", "standard")
    )
