"""Every combination equally likely, drawn once for the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robustmm import CombinationSampler, Component, Options, draw_for_batch, hookimpl

from ._table import weight_table


class UniformBatch(CombinationSampler):
    """All samples of a batch show one combination; a sample that has nothing of it keeps one modality.

    Args:
        modalities: In column order.
    """

    def __init__(self, modalities: Sequence[str]) -> None:
        self.table, self.weights = weight_table(None, modalities)

    def __call__(self, observed: Tensor, generator: torch.Generator) -> Tensor:
        """See `robustmm.masks.draw_for_batch`."""
        return draw_for_batch(self.table, self.weights, observed, generator)


@hookimpl
def robustmm_register_samplers(register: Callable[[Component], None]) -> None:
    """Offer the draw per batch."""
    register(
        Component(
            "uniform_batch",
            UniformBatch,
            Options,
            "The whole batch shows one of the 2^M - 1 combinations, all equally likely.",
            "standard",
        )
    )
