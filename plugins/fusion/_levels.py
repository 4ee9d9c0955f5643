"""What the fusions of this folder share: checks, projections over the channel axis, presence as a mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from robustmm import RobustmmError, ShapeError, did_you_mean

#: Option text of every fusion that projects.
DIM_HELP = "width of the fused feature"

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
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Projections(nn.Module):
    """One `ChannelLinear` per level and modality.

    Args:
        levels: Channels of each modality, by level (see `by_level`).
        dim: Channels of every result.
    """

    def __init__(self, levels: Sequence[Mapping[str, int]], dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {
                f"{name}_{level}": ChannelLinear(width, dim)
                for level, widths in enumerate(levels)
                for name, width in widths.items()
            }
        )

    def forward(self, level: int, name: str, feature: Tensor) -> Tensor:
        """(B, D, ...) -> (B, dim, ...)."""
        projected: Tensor = self.layers[f"{name}_{level}"](feature)
        return projected


def with_presence(features: Mapping[str, Tensor], presence: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(modality, feature, (B,) bool) in column order."""
    for column, (name, feature) in enumerate(features.items()):
        yield name, feature, presence[:, column]
