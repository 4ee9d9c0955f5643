"""Gaussian blur of pictures."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import conv2d, pad

from robustmm import Component, Options, hookimpl

from ._levels import HENDRYCKS, Positives
from ._pictures import UnitRange, scale_of

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
        weight = gaussian_filter(valid.float(), sigma)
        return gaussian_filter(unit, sigma) / weight.clamp_min(torch.finfo(torch.float32).tiny)


def gaussian_filter(value: Tensor, sigma: float) -> Tensor:
    """Each channel of (D, H, W) convolved with a Gaussian of deviation ``sigma`` in pixels, to the same shape."""
    radius = int(TRUNCATE * sigma + 0.5)
    places = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (places / sigma).square())
    kernel = (kernel / kernel.sum()).float()
    padded = pad(value[:, None], (radius,) * 4, mode="replicate")  # (D, 1, H + 2r, W + 2r)
    return conv2d(conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))[:, 0]


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
