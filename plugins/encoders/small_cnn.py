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
    """

    widths: tuple[Annotated[int, Field(gt=0)], ...] = Field(
        (32, 64, 128), min_length=1, description="channels after each stage; each stage halves the grid, rounded up"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="share of channels set to zero in training, after each stage")


def build_small_cnn(modality: Modality, widths: Sequence[int], dropout: float) -> Encoder:
    """Stages of 3x3 convolution, BatchNorm, ReLU, 2x2 maximum: (B, D, H, W) to (B, widths[i], H / 2**(i + 1), ...)."""
    check_rank("small_cnn", modality, "(D, H, W)")
    stages = nn.ModuleList(
        _stage(before, after, dropout) for before, after in zip((modality.shape[0], *widths), widths, strict=False)
    )
    initialise(stages)
    return Encoder(stages, tuple(widths), tuple(2 ** (index + 1) for index in range(len(widths))))


def _stage(before: int, after: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(before, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),  # rounded up, so that odd and one-pixel grids survive
    ]
    return nn.Sequential(*layers, *([nn.Dropout2d(dropout)] if dropout else []))


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
