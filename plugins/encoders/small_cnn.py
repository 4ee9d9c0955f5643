"""A small 2-D convolutional network for pictures and spectrograms of about 16 to 64 pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import Field
from torch import nn

from robustmm import Component, Encoder, Modality, Options, hookimpl

from ._layers import check_rank, initialise


class SmallCNNOptions(Options):
    """Options of the encoder.

    Args:
        widths: Channels after each stage.
        dropout: Share of channels set to zero in training, after each stage.
        full_size: The first stage keeps the grid, as in a U-Net, for label maps with small things in them.
    """

    widths: tuple[Annotated[int, Field(gt=0)], ...] = Field(
        (32, 64, 128), min_length=1, description="channels after each stage; each stage halves the grid, rounded up"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="share of channels set to zero in training, after each stage")
    full_size: bool = Field(False, description="the first stage keeps the grid, as in a U-Net; for fine label maps")


def build_small_cnn(modality: Modality, widths: Sequence[int], dropout: float, full_size: bool = False) -> Encoder:
    """Stages of 3x3 convolution, BatchNorm, ReLU, 2x2 maximum: (B, D, H, W) to (B, widths[i], H / 2**(i + 1), ...).

    With ``full_size`` the maximum comes first in each stage but the first, which has none: level i is H / 2**i.
    """
    check_rank("small_cnn", modality, "(D, H, W)")
    stages = nn.ModuleList()
    for place, (before, after) in enumerate(zip((modality.shape[0], *widths), widths, strict=False)):
        pool: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)]  # rounded up, so that odd and one-pixel grids survive
        layers: list[nn.Module] = [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        order = [*(pool if place else []), *layers] if full_size else [*layers, *pool]
        stages.append(nn.Sequential(*order, *([nn.Dropout2d(dropout)] if dropout else [])))
    initialise(stages)
    first = 0 if full_size else 1
    return Encoder(stages, tuple(widths), tuple(2 ** (first + place) for place in range(len(widths))))


@hookimpl
def robustmm_register_encoders(register: Callable[[Component], None]) -> None:
    """Offer the small network."""
    register(
        Component(
            "small_cnn",
            build_small_cnn,
            SmallCNNOptions,
            "A few convolutions for small pictures and spectrograms, one level per stage.",
            "standard",
            suits=frozenset({"image", "spectrogram"}),
        )
    )
