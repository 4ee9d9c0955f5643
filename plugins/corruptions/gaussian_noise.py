"""Gaussian noise on pictures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from robustmm import Component, Options, hookimpl

from ._levels import HENDRYCKS, Positives
from ._pictures import UnitRange, normal_like


class GaussianNoiseOptions(Options):
    """Options of Gaussian noise."""

    levels: Positives = Field(
        (0.08, 0.12, 0.18, 0.26, 0.38), description="deviation of the noise in each severity, as a share of the range"
    )


class GaussianNoise(UnitRange):
    """``x + level * n``, n standard normal and independent for every value."""

    def unit_at_level(self, unit: Tensor, level: float, generator: torch.Generator, valid: Tensor) -> Tensor:
        """See `UnitRange.unit_at_level`."""
        return unit + level * normal_like(unit, generator)


@hookimpl
def robustmm_register_corruptions(register: Callable[[Component], None]) -> None:
    """Offer Gaussian noise."""
    register(
        Component(
            "gaussian_noise",
            GaussianNoise,
            GaussianNoiseOptions,
            "Gaussian noise in shares of the range of values, as of a sensor in low light.",
            HENDRYCKS,
            fidelity="part",
            suits=frozenset({"image"}),
        )
    )
