"""The contract of a head: fused levels to logits."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Head(nn.Module):
    """Fused levels to logits."""

    def forward(self, fused: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
        """Predict.

        Args:
            fused: Levels, (B, D) or (B, D, H, W).
            size: Spatial size of the target, () for global prediction.

        Returns:
            (B, C), or (B, C, *size).
        """
        raise TypeError(f"{type(self).__name__} must define forward(fused, size)")

    def scales(self, fused: Sequence[Tensor], size: tuple[int, ...]) -> list[Tensor]:
        """Everything that is supervised in training: what `forward` gives, then side outputs, finest to coarsest.

        A side output is (B, C, h, w) at a size of its own; labels are brought to it.
        """
        return [self(fused, size)]

    def linear_part(self, fused: Sequence[Tensor], bias_share: Tensor) -> Tensor | None:
        """Logits of one summand of the fused levels, where the head is linear; None where it is not.

        Args:
            fused: One modality's summand of each level.
            bias_share: (B,) share of the bias, 1 / (number of present modalities).

        Returns:
            (B, C), or (B, C, h, w) at the level's own size: where `forward` resizes, it does so bilinearly.
        """
        return None
