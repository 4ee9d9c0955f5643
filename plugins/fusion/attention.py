"""Attention of a learned query over the modalities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from robustmm import Component, Fusion, Options, ShapeError, hookimpl, where_present

from ._levels import DIM_HELP, Channels, Projections, by_level, channel_linear, fused_widths, with_presence


class AttentionOptions(Options):
    """Options of the fusion.

    Args:
        dim: Width of the fused feature; None keeps that of the first modality at each level.
        heads: Independent queries; each weighs its own dim / heads channels.
    """

    dim: int | None = Field(128, gt=0, description=DIM_HELP)
    heads: int = Field(4, gt=0, description="independent queries, each over dim / heads channels")

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> Self:
        if self.dim is not None and self.dim % self.heads:
            raise ValueError(f"dim must be a multiple of heads, got {self.dim} and {self.heads}")
        return self


class Attention(Fusion):
    """``sum_m w_m V_m f_m`` with ``w = softmax over present m of q . K_m f_m / sqrt(dim / heads)``.

    On maps every position has weights of its own. Where nothing is present a learned vector is given.

    Args:
        channels: Modality -> channels by level.
        dim: Width of the fused feature at every level, or None for that of the first modality.
        heads: Number of queries; divides every width.

    Raises:
        ShapeError: a width that ``heads`` does not divide.
    """

    def __init__(self, channels: Channels, dim: int | None, heads: int) -> None:
        levels = by_level("attention", channels)
        super().__init__(fused_widths(levels, dim))
        for level, width in enumerate(self.channels):
            if width % heads:
                raise ShapeError(
                    f"fusion 'attention', level {level}: its width {width} is no multiple of {heads} heads; set dim, "
                    f"or a number of heads that divides the width of every level"
                )
        self.keys = Projections(levels, self.channels)
        self.values = Projections(levels, self.channels)
        self.queries = nn.ParameterList(nn.Parameter(torch.randn(heads, width // heads)) for width in self.channels)
        self.nulls = nn.ParameterList(nn.Parameter(torch.zeros(width)) for width in self.channels)

    def forward(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> Tensor:
        """See `Fusion.forward`."""
        query = self.queries[level]
        scores = torch.stack([self._scores(level, name, feature) for name, feature in features.items()], dim=1)
        weights = attention_weights(scores, presence).unbind(dim=1)  # M times (B, heads, ...)
        parts = []
        for (name, feature, present), weight in zip(with_presence(features, presence), weights, strict=True):
            value = self.values(level, name, feature)
            value = where_present(value, present, value.new_zeros(()))
            parts.append((weight.unsqueeze(2) * _split(value, 1, query)).flatten(1, 2))
        fused = reduce(torch.add, parts)  # (B, dim, ...)
        null = self.nulls[level].to(fused.dtype).view(-1, *[1] * (fused.dim() - 2))
        return where_present(fused, presence.any(dim=1), null)

    def adaptable(self) -> list[nn.Parameter]:
        """Queries, keys and values, which weigh the modalities; what stands in for nothing stays as it was trained."""
        return [*self.queries, *self.keys.parameters(), *self.values.parameters()]

    def _scores(self, level: int, name: str, feature: Tensor) -> Tensor:
        """``q . K_m f_m / sqrt(dim / heads)`` as ``(K_m^T q) . f_m``: the keys, as large as the values, never exist.

        Returns:
            (B, heads, ...).
        """
        query, key = self.queries[level], self.keys.layer(level, name)
        query = query / query.shape[1] ** 0.5
        weight = torch.einsum("hd,hdi->hi", query, _split(key.weight, 0, query))
        bias = (query * key.bias.view_as(query)).sum(dim=1)
        return channel_linear(feature, weight, bias)


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


def _split(x: Tensor, axis: int, query: Tensor) -> Tensor:
    """Part an axis of dim into (heads, dim / heads), the shape of ``query``."""
    return x.view(*x.shape[:axis], *query.shape, *x.shape[axis + 1 :])


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
