"""A small 1-D convolutional network for sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import Field, field_validator
from torch import nn

from robustmm import Component, Encoder, Modality, Options, hookimpl

from ._layers import check_rank, initialise


class CNN1dOptions(Options):
    """Options of the encoder.

    Args:
        widths: Channels after each stage.
        kernel_size: Time steps under a convolution; odd, so that lengths halve exactly.
        dropout: Share of channels set to zero in training, after each stage.
    """

    widths: tuple[Annotated[int, Field(gt=0)], ...] = Field(
        (32, 64, 128), min_length=1, description="channels after each stage; each stage halves the length, rounded up"
    )
    kernel_size: int = Field(5, ge=1, description="odd width of the convolutions, in time steps")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of channels set to zero in training, after each stage")

    @field_validator("kernel_size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"must be odd, got {value}")
        return value


def build_cnn1d(modality: Modality, widths: Sequence[int], kernel_size: int, dropout: float) -> Encoder:
    """Stages of strided convolution, BatchNorm, ReLU: (B, D, T) to (B, widths[i], ceil(T / 2**(i + 1)))."""
    check_rank("cnn1d", modality, "(D, T)")
    stages = nn.ModuleList(
        _stage(before, after, kernel_size, dropout)
        for before, after in zip((modality.shape[0], *widths), widths, strict=False)
    )
    initialise(stages)
    return Encoder(stages, tuple(widths), tuple(2 ** (index + 1) for index in range(len(widths))))


def _stage(before: int, after: int, kernel_size: int, dropout: float) -> nn.Sequential:
    convolution = nn.Conv1d(before, after, kernel_size, stride=2, padding=kernel_size // 2, bias=False)
    layers: list[nn.Module] = [convolution, nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, *([nn.Dropout1d(dropout)] if dropout else []))


@hookimpl
def robustmm_register_encoders(register: Callable[[Component], None]) -> None:
    """Offer the 1-D network."""
    register(
        Component(
            "cnn1d",
            build_cnn1d,
            CNN1dOptions,
            "Strided 1-D convolutions for sequences, one level per stage.",
            "standard",
            suits=frozenset({"sequence"}),
        )
    )
