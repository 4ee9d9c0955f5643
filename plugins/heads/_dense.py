"""What heads share: from the last fused level to one prediction per sample or per pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn.functional import interpolate

from robustmm import pooled


def predict(layers: Callable[[Tensor], Tensor], fused: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
    """Apply layers over the last axis to the last level.

    Args:
        layers: (..., D) -> (..., C).
        fused: Levels, (B, D) or (B, D, H, W).
        size: () pools the level and gives (B, C); else logits are resized bilinearly to (B, C, *size).
    """
    if not size:
        return layers(pooled(fused[-1]))
    return interpolate(layers(fused[-1].movedim(1, -1)).movedim(-1, 1), size, mode="bilinear", align_corners=False)
