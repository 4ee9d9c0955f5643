"""What the fusions of this folder share: checks, projections over the channel axis, presence as a mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from robustmm import RobustmmError, ShapeError, did_you_mean

#: Option text of every fusion that projects.
DIM_HELP = "width of the fused feature; null keeps the width of the first modality at each level"

Channels = Mapping[str, Sequence[int]]


def by_level(fusion: str, channels: Channels) -> list[dict[str, int]]:
    """Channels of each modality, one mapping per level.

    Raises:
        ShapeError: the modalities have different numbers of levels.
    """
    counts = {name: len(levels) for name, levels in channels.items()}
    if len(set(counts.values())) != 1:
        raise ShapeError(f"fusion '{fusion}': every modality must have the same number of levels, got {counts}")
    return [{name: levels[level] for name, levels in channels.items()} for level in range(next(iter(counts.values())))]


def fused_widths(levels: Sequence[Mapping[str, int]], dim: int | None) -> tuple[int, ...]:
    """Channels of the fused feature by level: ``dim``, or where that is None those of the first modality."""
    return tuple(next(iter(widths.values())) if dim is None else dim for widths in levels)


def check_equal_widths(fusion: str, levels: Sequence[Mapping[str, int]]) -> None:
    """Refuse features of different widths, for fusions without weights.

    Raises:
        ShapeError: with the first such level and the channels there.
    """
    for level, widths in enumerate(levels):
        if len(set(widths.values())) > 1:
            listed = ", ".join(f"{name} has {width} channels" for name, width in widths.items())
            raise ShapeError(
                f"fusion '{fusion}', level {level}: {listed}; it needs features of one width: give the modalities "
                f"encoders that agree on channels[{level}], or use fusion 'sum', which projects"
            )


def check_modality(fusion: str, option: str, name: str, channels: Channels) -> None:
    """Refuse an option that names a modality which is not there.

    Raises:
        RobustmmError: with the closest name and all modalities.
    """
    if name not in channels:
        hint = did_you_mean(name, channels)
        raise RobustmmError(
            f"fusion '{fusion}': {option}: no modality '{name}'{hint} (modalities: {', '.join(channels)})"
        )


class ChannelLinear(nn.Linear):
    """A linear layer over axis 1: (B, D, ...) -> (B, D', ...), so on maps a 1x1 convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply to vectors or maps."""
        return channel_linear(x, self.weight, self.bias)


def channel_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``W x + b`` over axis 1, (B, D, ...) -> (B, D', ...); maps keep their memory format, which saves copies."""
    last = x.movedim(1, -1)
    if x.dim() == 2 or last.is_contiguous():
        return linear(last, weight, bias).movedim(-1, 1)
    flat = torch.baddbmm(bias[:, None], weight.expand(len(x), -1, -1), x.flatten(2))  # (B, D', positions)
    return flat.view(*flat.shape[:2], *x.shape[2:])


class Projections(nn.Module):
    """One `ChannelLinear` per level and modality.

    Args:
        levels: Channels of each modality, by level (see `by_level`).
        dims: Channels of the results, by level.
    """

    def __init__(self, levels: Sequence[Mapping[str, int]], dims: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {
                f"{name}_{level}": ChannelLinear(width, dim)
                for level, (widths, dim) in enumerate(zip(levels, dims, strict=True))
                for name, width in widths.items()
            }
        )

    def forward(self, level: int, name: str, feature: Tensor) -> Tensor:
        """(B, D, ...) -> (B, dims[level], ...)."""
        projected: Tensor = self.layer(level, name)(feature)
        return projected

    def layer(self, level: int, name: str) -> ChannelLinear:
        """The projection of one modality's feature."""
        layer = self.layers[f"{name}_{level}"]
        assert isinstance(layer, ChannelLinear)
        return layer


def with_presence(features: Mapping[str, Tensor], presence: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(modality, feature, (B,) bool) in column order."""
    for column, (name, feature) in enumerate(features.items()):
        yield name, feature, presence[:, column]
