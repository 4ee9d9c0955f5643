"""The contract of an encoder, and of the vectors that late trunks take from it."""

from __future__ import annotations

from torch import Tensor, nn


class Encoder(nn.Module):
    """One modality's input to feature levels, one after each stage. A vector encoder is one stage with reduction 0.

    Args:
        stages: Run one after another; the output of each is a level.
        channels: Channels after each stage.
        reductions: Input size divided by level size for each stage, 0 for vectors.
    """

    stages: nn.ModuleList
    channels: tuple[int, ...]
    reductions: tuple[int, ...]

    def __init__(self, stages: nn.ModuleList, channels: tuple[int, ...], reductions: tuple[int, ...]) -> None:
        super().__init__()
        self.stages = stages
        self.channels = channels
        self.reductions = reductions

    def forward(self, x: Tensor) -> list[Tensor]:
        """Input (B, ...) -> one feature per stage, (B, D) for vectors or (B, D, ...) for maps."""
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels


def pooled(feature: Tensor) -> Tensor:
    """Global average over every axis behind the channels: (B, D, ...) -> (B, D)."""
    return feature if feature.dim() == 2 else feature.flatten(2).mean(dim=2)
