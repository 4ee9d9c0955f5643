"""Gaussian blur of pictures."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from pydantic import Field
from torch import Tensor

from robustmm import Component, Options, hookimpl

from ._levels import HENDRYCKS, Positives
from ._pictures import UnitRange, filtered, scale_of

#: The filter ends at so many deviations, as in SciPy and scikit-image.
TRUNCATE = 4.0


class GaussianBlurOptions(Options):
    """Options of Gaussian blur."""

    levels: Positives = Field(
        (1.0, 2.0, 3.0, 4.0, 6.0),
        description="deviation of the filter in each severity, in pixels of a picture whose shorter side has 224",
    )


class GaussianBlur(UnitRange):
    """A Gaussian filter whose width follows the picture's size; the border is continued with its own values.

    What was not measured has no part in the mean around it.
    """

    def unit_at_level(self, unit: Tensor, level: float, generator: torch.Generator, valid: Tensor) -> Tensor:
        """See `UnitRange.unit_at_level`."""
        sigma = level * scale_of(unit)
        rows, columns = (gaussian_weights(size, sigma) for size in unit.shape[-2:])
        return filtered(unit, valid, rows, columns)


@lru_cache(maxsize=16)
def gaussian_weights(size: int, sigma: float) -> Tensor:
    """(size, size): row i has the share of each value of a line in the filtered value i; not to be changed."""
    radius = int(TRUNCATE * sigma + 0.5)
    places = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (places.double() / sigma).square())
    kernel = kernel / kernel.sum()
    sources = (torch.arange(size)[:, None] + places).clamp(0, size - 1)  # (size, 2r + 1), ends continued
    weights = torch.zeros(size, size, dtype=torch.float64)
    return weights.scatter_add_(1, sources, kernel.expand(size, -1)).float()


@hookimpl
def robustmm_register_corruptions(register: Callable[[Component], None]) -> None:
    """Offer Gaussian blur."""
    register(
        Component(
            "gaussian_blur",
            GaussianBlur,
            GaussianBlurOptions,
            "A Gaussian filter, as out of focus; its width follows the picture's size.",
            HENDRYCKS,
            fidelity="part",
            suits=frozenset({"image"}),
        )
    )
