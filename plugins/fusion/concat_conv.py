"""Concatenation and a 1x1 convolution to a narrower feature."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from robustmm import Component, Fusion, Options, ShapeError, hookimpl

from ._levels import DIM_HELP, Channels, by_level, fused_widths


class ConcatConvOptions(Options):
    """Options of the fusion.

    Args:
        dim: Width of the fused feature; None keeps that of the first modality at each level.
    """

    dim: int | None = Field(None, gt=0, description=DIM_HELP)


class ConcatConv(Fusion):
    """``ReLU(BatchNorm(W [f_1 | ... | f_M]))``, over vectors and at each position of maps.

    Without BatchNorm and ReLU it would be fusion ``sum`` with one bias. What the missing policy left of an absent
    modality stays, zeros by default, as in fusion ``concat``.

    Args:
        channels: Modality -> channels by level.
        dim: Width of the fused feature at every level, or None for that of the first modality.
    """

    def __init__(self, channels: Channels, dim: int | None) -> None:
        levels = by_level("concat_conv", channels)
        super().__init__(fused_widths(levels, dim))
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(sum(widths.values()), width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
            for widths, width in zip(levels, self.channels, strict=True)
        )

    def forward(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> Tensor:
        """See `Fusion.forward`.

        Raises:
            ShapeError: a batch of one vector in training, of which BatchNorm cannot take a variance.
        """
        joined = torch.cat(list(features.values()), dim=1)
        if self.training and joined.shape[1] == joined.numel():
            raise ShapeError(
                "fusion 'concat_conv' cannot train on a batch of one sample with one position, because of BatchNorm; "
                "use a data.batch_size of at least 2, or fusion 'sum'"
            )
        maps = joined if joined.dim() == 4 else joined.reshape(*joined.shape[:2], -1, 1)
        fused: Tensor = self.layers[level](maps)
        return fused.view(*fused.shape[:2], *joined.shape[2:])


@hookimpl
def robustmm_register_fusions(register: Callable[[Component], None]) -> None:
    """Offer concatenation with a convolution."""
    register(
        Component(
            "concat_conv",
            ConcatConv,
            ConcatConvOptions,
            "Features side by side, then a 1x1 convolution with BatchNorm and ReLU to one width.",
            "standard",
        )
    )
