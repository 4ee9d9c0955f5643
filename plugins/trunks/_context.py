"""Context modules: what a place in the last map is told of the whole picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from .._esanet import conv_bn_act  # noqa: TID252  # installed under another name


class PyramidPooling(nn.Module):
    """Averages over grids of several sizes, each through a 1x1 convolution, joined with the map they are made of.

    Each grid gets ``channels // len(bins)`` channels and is brought back to the map's size by repetition; the map and
    all grids together go through a last 1x1 convolution. All convolutions are without bias, with BatchNorm and ReLU.

    Args:
        channels: D of the map.
        width: D of the result.
        bins: Sides of the grids.
        reference: Size of the map for which the grids are made. A map of another size gets grids that are a whole
            number of times finer, at least once: the ratio rounded, each side apart. None keeps the grids.

    Source:
        PSPNet (CVPR 2017) as ``ppm`` and with a reference as ``appm`` in the code of ESANet (ICRA 2021,
        arXiv:2011.06961), which repeats here also where its decoder learns its upsampling.
    """

    def __init__(
        self, channels: int, width: int, bins: Sequence[int], reference: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        self.bins = tuple(bins)
        self.reference = reference
        branch = channels // len(self.bins)
        self.branches = nn.ModuleList(conv_bn_act(channels, branch, 1) for _ in self.bins)
        self.join = conv_bn_act(channels + branch * len(self.bins), width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W) -> (B, width, H, W)."""
        size = x.shape[2:]
        down, across = self._times(size)
        parts = [x]
        for side, branch in zip(self.bins, self.branches, strict=True):
            pooled = branch(adaptive_avg_pool2d(x, (side * down, side * across)))
            parts.append(interpolate(pooled, size, mode="nearest"))
        joined: Tensor = self.join(torch.cat(parts, dim=1))
        return joined

    def _times(self, size: Sequence[int]) -> tuple[int, int]:
        if self.reference is None:
            return 1, 1
        down, across = (max(int(own / given + 0.5), 1) for own, given in zip(size, self.reference, strict=True))
        return down, across
