"""A fusion that keeps, for each channel, the largest feature among the present modalities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from robustmm import Component, Fusion, Options, hookimpl, where_present

#: The version of the plugin interface this was written for; another one makes the plugin incompatible.
ROBUSTMM_PLUGIN_API = 1


class MaxFusionOptions(Options):
    """Options of the fusion; each field is a key in YAML, and its description stands in ``robustmm list``."""

    dim: int = Field(128, gt=0, description="Width of the fused feature.")


class MaxFusion(Fusion):
    """``max over present m of W_m f_m + b_m``, channel by channel.

    Args:
        channels: Modality -> channels by level, as the encoders make them.
        dim: Width of the fused feature at every level.
    """

    def __init__(self, channels: Mapping[str, Sequence[int]], dim: int) -> None:
        depth = max(len(widths) for widths in channels.values())
        super().__init__((dim,) * depth)
        self.projections = nn.ModuleDict(
            {
                f"{name}_{level}": nn.Linear(width, dim)
                for name, widths in channels.items()
                for level, width in enumerate(widths)
            }
        )

    def forward(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> Tensor:
        """Fuse one level.

        Args:
            level: Index of the level.
            features: Modality -> (B, D) or (B, D, ...), in column order.
            presence: (B, M) bool.

        Returns:
            (B, dim) or (B, dim, ...), zero where nothing is present.
        """
        candidates = []
        for column, (name, feature) in enumerate(features.items()):
            projected = self.projections[f"{name}_{level}"](feature.movedim(1, -1)).movedim(-1, 1)
            lowest = projected.new_full((), torch.finfo(projected.dtype).min)  # never the largest, unlike zero
            candidates.append(where_present(projected, presence[:, column], lowest))
        fused = torch.stack(candidates).amax(dim=0)
        return where_present(fused, presence.any(dim=1), fused.new_zeros(()))


@hookimpl
def robustmm_register_fusions(register: Callable[[Component], None]) -> None:
    """Offer the fusion."""
    register(
        Component(
            name="projected_max",
            build=MaxFusion,
            options=MaxFusionOptions,
            summary="Largest feature among the present modalities, after one linear projection each.",
            source="standard",
        )
    )
