"""Coarse pixels."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from pydantic import Field
from torch import Tensor

from robustmm import Component, Options, hookimpl

from ._levels import HENDRYCKS, Shares
from ._pictures import UnitRange, filtered


class PixelateOptions(Options):
    """Options of pixelate."""

    levels: Shares = Field(
        (0.6, 0.5, 0.4, 0.3, 0.25), description="share of the pixels that are left along each side in each severity"
    )


class Pixelate(UnitRange):
    """Averages over boxes, each drawn as one large pixel; what was not measured has no part in them."""

    def unit_at_level(self, unit: Tensor, level: float, generator: torch.Generator, valid: Tensor) -> Tensor:
        """See `UnitRange.unit_at_level`."""
        rows, columns = (round_trip(size, max(int(size * level), 1)) for size in unit.shape[-2:])
        return filtered(unit, valid, rows, columns)


@lru_cache(maxsize=16)
def round_trip(size: int, fewer: int) -> Tensor:
    """(size, size): reduces a line to ``fewer`` values and enlarges it to its size again; not to be changed."""
    return (box_resize(fewer, size) @ box_resize(size, fewer)).float()


def box_resize(size: int, new: int) -> Tensor:
    """(new, size) float64 matrix of Pillow's BOX filter: the mean of all values whose centre lies in the new box."""
    scale = size / new
    centre = (torch.arange(new, dtype=torch.float64) + 0.5) * scale
    distance = torch.arange(size, dtype=torch.float64) + 0.5 - centre[:, None]  # (new, size)
    inside = (distance / max(scale, 1.0) > -0.5) & (distance / max(scale, 1.0) <= 0.5)
    return inside.double() / inside.sum(dim=1, keepdim=True)


@hookimpl
def robustmm_register_corruptions(register: Callable[[Component], None]) -> None:
    """Offer pixelate."""
    register(
        Component(
            "pixelate",
            Pixelate,
            PixelateOptions,
            "Fewer, larger pixels, as of a picture enlarged from a small one.",
            HENDRYCKS,
            fidelity="part",
            suits=frozenset({"image"}),
        )
    )
