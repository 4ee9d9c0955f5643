"""What the encoders of this folder share: initialisation and small checks."""

from __future__ import annotations

from torch import nn

from robustmm import Modality, ShapeError


def initialise(module: nn.Module) -> None:
    """Set convolutions to Kaiming normal (fan out) and BatchNorm to (1, 0), as the field does; the rest is left."""
    for part in module.modules():
        if isinstance(part, nn.Conv1d | nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)


def check_rank(encoder: str, modality: Modality, layout: str) -> None:
    """Refuse a modality whose samples have another number of axes than ``layout``, such as ``(D, H, W)``.

    Raises:
        ShapeError: with the modality, its shape and what the encoder takes.
    """
    if len(modality.shape) != layout.count(",") + (not layout.endswith(",)")):
        raise ShapeError(
            f"encoder '{encoder}' takes samples of shape {layout}, "
            f"modality '{modality.name}' ({modality.kind}) has {modality.shape}"
        )
