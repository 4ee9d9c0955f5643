"""Shot noise on pictures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from robustmm import Component, Options, hookimpl

from ._levels import HENDRYCKS, Positives
from ._pictures import UnitRange


class ShotNoiseOptions(Options):
    """Options of shot noise."""

    levels: Positives = Field(
        (60.0, 25.0, 12.0, 5.0, 3.0), description="photons that the largest value stands for in each severity"
    )


class ShotNoise(UnitRange):
    """``Poisson(level * x) / level``: the mean stays, the variance is ``x / level``."""

    def unit_at_level(self, unit: Tensor, level: float, generator: torch.Generator, valid: Tensor) -> Tensor:
        """See `UnitRange.unit_at_level`."""
        return torch.poisson(unit.clamp_min(0) * level, generator=generator) / level


@hookimpl
def robustmm_register_corruptions(register: Callable[[Component], None]) -> None:
    """Offer shot noise."""
    register(
        Component(
            "shot_noise",
            ShotNoise,
            ShotNoiseOptions,
            "Noise of counted photons, which is larger where the picture is brighter.",
            HENDRYCKS,
            fidelity="part",
            suits=frozenset({"image"}),
        )
    )
