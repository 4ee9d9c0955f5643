"""Impulse noise on pictures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from robustmm import Component, Options, hookimpl

from ._levels import HENDRYCKS, Shares
from ._pictures import UnitRange, uniform_like


class ImpulseNoiseOptions(Options):
    """Options of impulse noise."""

    levels: Shares = Field(
        (0.03, 0.06, 0.09, 0.17, 0.27), description="share of values that are replaced in each severity"
    )


class ImpulseNoise(UnitRange):
    """Each value by itself becomes, with probability ``level``, the smallest or the largest, both equally likely."""

    def unit_at_level(self, unit: Tensor, level: float, generator: torch.Generator, valid: Tensor) -> Tensor:
        """See `UnitRange.unit_at_level`."""
        hit = uniform_like(unit, generator) < level
        salt = uniform_like(unit, generator) < 0.5
        return torch.where(hit, salt.float(), unit)


@hookimpl
def robustmm_register_corruptions(register: Callable[[Component], None]) -> None:
    """Offer impulse noise."""
    register(
        Component(
            "impulse_noise",
            ImpulseNoise,
            ImpulseNoiseOptions,
            "Salt and pepper: single values become the smallest or the largest.",
            HENDRYCKS,
            fidelity="part",
            suits=frozenset({"image"}),
        )
    )
