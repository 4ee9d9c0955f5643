"""Attention of a learned query over the modalities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from robustmm import Component, Fusion, Options, hookimpl, where_present

from ._levels import DIM_HELP, Channels, Projections, by_level


class AttentionOptions(Options):
    """Options of the fusion.

    Args:
        dim: Width of the fused feature.
        heads: Independent queries; each weighs its own dim / heads channels.
    """

    dim: int = Field(128, gt=0, description=DIM_HELP)
    heads: int = Field(4, gt=0, description="independent queries, each over dim / heads channels")

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"dim must be a multiple of heads, got {self.dim} and {self.heads}")
        return self


class Attention(Fusion):
    """``sum_m w_m V_m f_m`` with ``w = softmax over present m of q . K_m f_m / sqrt(dim / heads)``.

    On maps every position has weights of its own. Where nothing is present a learned vector is given.

    Args:
        channels: Modality -> channels by level.
        dim: Width of the fused feature at every level.
        heads: Number of queries; divides ``dim``.
    """

    def __init__(self, channels: Channels, dim: int, heads: int) -> None:
        levels = by_level("attention", channels)
        super().__init__((dim,) * len(levels))
        self.keys = Projections(levels, dim)
        self.values = Projections(levels, dim)
        self.queries = nn.ParameterList(nn.Parameter(torch.randn(heads, dim // heads)) for _ in levels)
        self.nulls = nn.ParameterList(nn.Parameter(torch.zeros(dim)) for _ in levels)

    def forward(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> Tensor:
        """See `Fusion.forward`."""
        query = self.queries[level]
        keys = torch.stack([self.keys(level, name, feature) for name, feature in features.items()], dim=1)
        values = self._values(level, features, presence)  # (B, M, dim, ...)
        split = (len(values), values.shape[1], *query.shape, *values.shape[3:])  # (B, M, heads, dim / heads, ...)
        scores = torch.einsum("bmhd...,hd->bmh...", keys.view(split), query) / query.shape[1] ** 0.5
        weights = attention_weights(scores, presence)
        fused = (weights.unsqueeze(3) * values.view(split)).sum(dim=1).flatten(1, 2)  # (B, dim, ...)
        null = self.nulls[level].to(fused.dtype).view(-1, *[1] * (fused.dim() - 2))
        return where_present(fused, presence.any(dim=1), null)

    def _values(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> Tensor:
        values = torch.stack([self.values(level, name, feature) for name, feature in features.items()], dim=1)
        return values.where(_over(presence, values), values.new_zeros(()))


def attention_weights(scores: Tensor, presence: Tensor) -> Tensor:
    """Softmax over the present modalities, in float32.

    Args:
        scores: (B, M, ...).
        presence: (B, M) bool.

    Returns:
        Weights of the shape and type of ``scores``: 0 for absent modalities, adding up to 1 over axis 1. Rows in which
        nothing is present are finite and mean nothing.
    """
    shown = presence | ~presence.any(dim=1, keepdim=True)  # a row of -inf alone would give NaN
    return scores.float().masked_fill(~_over(shown, scores), float("-inf")).softmax(dim=1).to(scores.dtype)


def _over(mask: Tensor, like: Tensor) -> Tensor:
    """(B, M) -> (B, M, 1, ...) with as many axes as ``like``."""
    return mask.view(*mask.shape, *[1] * (like.dim() - 2))


@hookimpl
def robustmm_register_fusions(register: Callable[[Component], None]) -> None:
    """Offer attention over modalities."""
    register(
        Component(
            "attention",
            Attention,
            AttentionOptions,
            "A learned query weighs the present modalities.",
            "standard; after Vaswani et al., NeurIPS 2017, arXiv:1706.03762",
        )
    )
