"""Loss of contrast in pictures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from robustmm import Component, Options, hookimpl

from ._levels import HENDRYCKS, Shares, mean_of_valid
from ._pictures import UnitRange


class ContrastOptions(Options):
    """Options of contrast."""

    levels: Shares = Field((0.4, 0.3, 0.2, 0.1, 0.05), description="contrast that is left in each severity")


class Contrast(UnitRange):
    """``mean + level * (x - mean)``, with the mean of the picture's own channel."""

    def unit_at_level(self, unit: Tensor, level: float, generator: torch.Generator, valid: Tensor) -> Tensor:
        """See `UnitRange.unit_at_level`."""
        mean = mean_of_valid(unit, valid)
        return mean + level * (unit - mean)


@hookimpl
def robustmm_register_corruptions(register: Callable[[Component], None]) -> None:
    """Offer loss of contrast."""
    register(
        Component(
            "contrast",
            Contrast,
            ContrastOptions,
            "Each channel drawn towards its own mean, as in fog or bad light.",
            HENDRYCKS,
            fidelity="part",
            suits=frozenset({"image"}),
        )
    )
