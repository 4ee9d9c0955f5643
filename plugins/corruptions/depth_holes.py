"""Holes in a depth map."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate

from robustmm import Component, Modality, Options, hookimpl

from ._levels import Levelled, Shares

#: Holes are about as wide as this part of the shorter side, as those of glass, black cloth and shadows are.
PART = 8


class DepthHolesOptions(Options):
    """Options of depth holes."""

    levels: Shares = Field(
        (0.05, 0.1, 0.2, 0.35, 0.5), description="share of what was measured that is lost in each severity"
    )


class DepthHoles(Levelled):
    """Connected areas become "not measured", or the smallest value where the modality has no word for that.

    The holes of a severity lie within those of the next one, given the same generator.
    """

    @classmethod
    def reason_against(cls, modality: Modality) -> str | None:
        """More than one channel."""
        return None if modality.shape[0] == 1 else f"it needs 1 channel, not {modality.shape[0]}"

    def at_level(self, value: Tensor, level: float, generator: torch.Generator) -> Tensor:
        """See `Levelled.at_level`."""
        invalid = self.modality.scaling.invalid
        valid = self.valid(value)
        height = smooth_field(value.shape[1], value.shape[2], generator)[None].masked_fill(~valid, -torch.inf)
        lost = height.flatten().topk(round(level * int(valid.sum()))).indices
        hole = self.spread.low if invalid is None else invalid
        return value.flatten().index_fill(0, lost, hole).view_as(value)


def smooth_field(height: int, width: int, generator: torch.Generator) -> Tensor:
    """Random heights (H, W) that vary over an eighth of the shorter side."""
    cell = max(min(height, width) // PART, 1)
    coarse = torch.randn(1, 1, height // cell + 2, width // cell + 2, generator=generator)
    return interpolate(coarse, (height, width), mode="bilinear", align_corners=True)[0, 0]


@hookimpl
def robustmm_register_corruptions(register: Callable[[Component], None]) -> None:
    """Offer depth holes."""
    register(
        Component(
            "depth_holes",
            DepthHoles,
            DepthHolesOptions,
            "Areas of a depth map that the sensor did not see.",
            "own; the raw depth of NYUv2 (Silberman et al., ECCV 2012) has such holes",
            suits=frozenset({"image"}),
        )
    )
