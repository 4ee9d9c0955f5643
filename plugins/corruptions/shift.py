"""Pictures that are out of register with the other modalities."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from robustmm import Component, Options, hookimpl

from ._levels import Levelled, Positives
from ._pictures import scale_of

#: Shorter side in pixels of the pictures of KAIST, in which AR-CNN's shifts are stated.
KAIST_SIDE = 512
#: (rows, columns): AR-CNN's lines of 0, 45, 90 and 135 degrees, either way.
DIRECTIONS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


class ShiftOptions(Options):
    """Options of shift."""

    levels: Positives = Field(
        (2.0, 4.0, 6.0, 8.0, 10.0),
        description="shift along either axis in each severity, in pixels of a picture whose shorter side has 512",
    )


class Shift(Levelled):
    """The picture moved by whole pixels, one at least, in one of eight directions; what comes in is empty.

    Empty is "not measured" where the modality has a value for it, otherwise the smallest value.
    """

    keeps_places = False

    def at_level(self, value: Tensor, level: float, generator: torch.Generator) -> Tensor:
        """See `Levelled.at_level`."""
        invalid = self.modality.scaling.invalid
        pixels = max(round(level * scale_of(value, KAIST_SIDE)), 1)
        rows, columns = DIRECTIONS[int(torch.randint(len(DIRECTIONS), (), generator=generator))]
        return moved(value, rows * pixels, columns * pixels, self.spread.low if invalid is None else invalid)


def moved(value: Tensor, rows: int, columns: int, empty: float) -> Tensor:
    """(D, H, W) moved down by ``rows`` and right by ``columns``, negative for up and left."""
    height, width = value.shape[-2:]
    down, right = max(min(rows, height), -height), max(min(columns, width), -width)
    result = torch.full_like(value, empty)
    result[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = value[
        :, max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)
    ]
    return result


@hookimpl
def robustmm_register_corruptions(register: Callable[[Component], None]) -> None:
    """Offer shift."""
    register(
        Component(
            "shift",
            Shift,
            ShiftOptions,
            "A picture moved against the other modalities, as of cameras that are not aligned.",
            "Zhang et al., ICCV 2019, arXiv:1901.02645 (AR-CNN); shifts relative to the picture's size",
            fidelity="part",
            suits=frozenset({"image"}),
        )
    )
