"""Fully connected layers for feature vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from robustmm import Component, Encoder, Modality, Options, hookimpl

from ._layers import check_rank

Norm = Literal["none", "batch", "layer"]


class MLPOptions(Options):
    """Options of the encoder.

    Args:
        hidden: Widths of the layers.
        dropout: Share of activations set to zero in training, after each layer.
        norm: Normalisation before each activation.
    """

    hidden: tuple[Annotated[int, Field(gt=0)], ...] = Field(
        (128, 128), min_length=1, description="widths of the layers; the last one is the width of the feature"
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="share of activations set to zero in training, after each layer"
    )
    norm: Norm = Field("none", description="normalisation before each activation: none, batch or layer")


def build_mlp(modality: Modality, hidden: Sequence[int], dropout: float, norm: Norm) -> Encoder:
    """Layers of Linear, normalisation, ReLU, dropout; one level (B, hidden[-1])."""
    check_rank("mlp", modality, "(D,)")
    layers: list[nn.Module] = []
    for width_in, width_out in zip((modality.shape[0], *hidden), hidden, strict=False):
        layers += [nn.Linear(width_in, width_out), *_norm(norm, width_out), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return Encoder(nn.ModuleList([nn.Sequential(*layers)]), (hidden[-1],), (0,))


def _norm(norm: Norm, width: int) -> list[nn.Module]:
    if norm == "none":
        return []
    return [nn.BatchNorm1d(width) if norm == "batch" else nn.LayerNorm(width)]


@hookimpl
def robustmm_register_encoders(register: Callable[[Component], None]) -> None:
    """Offer the multi-layer perceptron."""
    register(
        Component(
            "mlp",
            build_mlp,
            MLPOptions,
            "Fully connected layers for feature vectors.",
            "standard",
            suits=frozenset({"vector"}),
        )
    )
