"""Coarse steps of measurement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustmm import Component, Options, hookimpl

from ._pictures import UnitRange

Count = Annotated[int, Field(ge=2)]


class QuantisationOptions(Options):
    """Options of quantisation."""

    levels: tuple[Count, Count, Count, Count, Count] = Field(
        (32, 16, 8, 4, 2), description="different values that are left in each severity: 5 bits to 1 bit"
    )


class Quantisation(UnitRange):
    """Each value becomes the closest of ``level`` values in equal steps from the smallest to the largest."""

    def unit_at_level(self, unit: Tensor, level: float, generator: torch.Generator, valid: Tensor) -> Tensor:
        """See `UnitRange.unit_at_level`."""
        steps = level - 1
        return (unit * steps).round() / steps


@hookimpl
def robustmm_register_corruptions(register: Callable[[Component], None]) -> None:
    """Offer quantisation."""
    register(
        Component(
            "quantisation",
            Quantisation,
            QuantisationOptions,
            "Few different values in equal steps, as of a sensor with few bits.",
            "own; uniform quantisation",
            suits=frozenset({"image", "sequence", "spectrogram"}),
        )
    )
