"""The contract of a fusion: features of the modalities to one feature per level."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


class Fusion(nn.Module):
    """Features of the present modalities to one fused feature.

    The missing policy has already been applied to the features: under ``zero_feature`` an absent modality's rows are
    zero. A fusion must give a result that does not depend on an absent modality's input. Rows without any modality
    occur, where a probe shows one modality alone to samples that lack it: their result has no meaning and must be
    finite.

    Args:
        channels: Channels of the fused feature, by level.
    """

    channels: tuple[int, ...]

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> Tensor:
        """Fuse one level.

        Args:
            level: Index of the level.
            features: Modality -> (B, D) or (B, D, ...), in column order.
            presence: (B, M) bool.

        Returns:
            (B, D') or (B, D', ...).
        """
        raise TypeError(f"{type(self).__name__} must define forward(level, features, presence)")

    def adaptable(self) -> list[nn.Parameter]:
        """What test-time adaptation may change: as it stands, every parameter of the fusion."""
        return list(self.parameters())

    def summands(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> dict[str, Tensor] | None:
        """Each modality's own part of the fused feature, where the fused feature is their sum; None where it is not.

        Behind a linear head the parts give unimodal logits that add up to the fused logits exactly.
        """
        return None


class NoFusion(Fusion):
    """Nothing is fused: encoders stand side by side, for methods that decide per modality."""

    def __init__(self) -> None:
        super().__init__(())
