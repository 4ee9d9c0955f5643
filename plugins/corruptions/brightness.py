"""Brighter pictures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from robustmm import Component, Options, hookimpl

from ._levels import HENDRYCKS, Positives
from ._pictures import UnitRange

#: Channels of a colour picture: red, green and blue.
COLOURS = 3


class BrightnessOptions(Options):
    """Options of brightness."""

    levels: Positives = Field(
        (0.1, 0.2, 0.3, 0.4, 0.5), description="what is added in each severity, as a share of the range"
    )


class Brightness(UnitRange):
    """``level`` added to V of HSV where there are three channels, so that hue and saturation stay; otherwise to all."""

    def unit_at_level(self, unit: Tensor, level: float, generator: torch.Generator, valid: Tensor) -> Tensor:
        """See `UnitRange.unit_at_level`."""
        return brighter(unit, level) if len(unit) == COLOURS else unit + level


def brighter(picture: Tensor, amount: float) -> Tensor:
    """``amount`` added to V = max(R, G, B) of (3, H, W) in [0, 1], at most 1; black becomes grey.

    Hue and saturation are ratios of the colours, so that all three grow by the factor by which V grows.
    """
    value = picture.amax(dim=0, keepdim=True)
    brightened = (value + amount).clamp_max(1.0).maximum(value)
    black = value <= 0
    factor = brightened / torch.where(black, torch.ones_like(value), value)
    return torch.where(black, brightened.expand_as(picture), picture * factor)


@hookimpl
def robustmm_register_corruptions(register: Callable[[Component], None]) -> None:
    """Offer brightness."""
    register(
        Component(
            "brightness",
            Brightness,
            BrightnessOptions,
            "A picture exposed too long; hue and saturation stay.",
            HENDRYCKS,
            fidelity="part",
            suits=frozenset({"image"}),
        )
    )
