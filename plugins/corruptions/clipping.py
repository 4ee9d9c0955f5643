"""Signals that leave the range of what records them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from robustmm import Component, Options, hookimpl

from ._levels import Levelled, Shares, mean_of_valid


class ClippingOptions(Options):
    """Options of clipping."""

    levels: Shares = Field((0.05, 0.1, 0.2, 0.3, 0.4), description="share of values that are clipped in each severity")


class Clipping(Levelled):
    """The values of a channel farthest from its mean are brought to one distance from it, the share ``level`` of them.

    The distance is a quantile of the sample's own, so that loud and soft recordings lose equal shares.
    """

    def at_level(self, value: Tensor, level: float, generator: torch.Generator) -> Tensor:
        """See `Levelled.at_level`."""
        valid = self.valid(value)
        mean = mean_of_valid(value, valid)
        distance = (value - mean).abs().masked_fill(~valid, torch.nan).flatten(1)
        limit = distance.nanquantile(1 - level, dim=1).nan_to_num().view_as(mean)
        return value.clamp(mean - limit, mean + limit)


@hookimpl
def robustmm_register_corruptions(register: Callable[[Component], None]) -> None:
    """Offer clipping."""
    register(
        Component(
            "clipping",
            Clipping,
            ClippingOptions,
            "Peaks cut off, as of a signal too loud for what records it.",
            "own; shares as in common audio augmentation, 0 to 40 %",
            suits=frozenset({"sequence", "spectrogram"}),
        )
    )
