"""Scaled cosines between feature and class vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from robustmm import Component, Head, Options, full_precision, hookimpl

from ._dense import predict

#: Shorter vectors count as zero, which has no direction.
SHORTEST = 1e-12


class CosineOptions(Options):
    """Options of the head."""

    scale: float = Field(10.0, gt=0, description="Logits lie between minus and plus this.")


def unit_vectors(x: Tensor) -> Tensor:
    """Vectors (..., D) at length 1; zero vectors stay zero and have gradient 0. At least float32."""
    with full_precision(x) as (x,):
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        # A feature of exactly 0 would otherwise pass on a gradient of 1e12.
        there = length > SHORTEST
        return torch.where(there, x / length.where(there, torch.ones_like(length)), torch.zeros_like(x))


class Cosine(Head):
    """``scale * cos(feature, class vector)`` of the last level, without bias; per position of a map, then resized.

    Neither the length of a feature nor that of a class vector matters. Cosines and logits are computed in float32.

    Source:
        MMCosine (ICASSP 2023, arXiv:2303.05338), where each modality has one; see the method of that name.

    Args:
        channels: Channels of the fused levels.
        num_outputs: C.
        scale: See `CosineOptions`.
    """

    def __init__(self, channels: Sequence[int], num_outputs: int, scale: float = 10.0) -> None:
        super().__init__()
        self.scale = scale
        self.classify = nn.Linear(channels[-1], num_outputs, bias=False)

    def forward(self, fused: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
        """See `Head.forward`."""
        return predict(self._cosines, fused, size)

    def _cosines(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., C)."""
        with full_precision(x, self.classify.weight) as (x, weight):
            return self.scale * nn.functional.linear(unit_vectors(x), unit_vectors(weight))


@hookimpl
def robustmm_register_heads(register: Callable[[Component], None]) -> None:
    """Offer the cosine head."""
    register(
        Component(
            name="cosine",
            build=Cosine,
            options=CosineOptions,
            summary="Scaled cosines between feature and class vectors, without bias.",
            source="Xu et al., ICASSP 2023, arXiv:2303.05338; code GeWu-Lab/MMCosine_ICASSP23",
            fidelity="code",
        )
    )
