"""Exact shares of the combinations in every batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor

from robustmm import CombinationSampler, Component, Options, draw_stratified, hookimpl

from ._table import Weights, weight_table


class StratifiedOptions(Options):
    """Options of the sampler.

    Args:
        weights: Combination -> weight; None means all alike.
    """

    weights: Weights | None = Field(
        None, description="combination (such as rgb+depth) -> weight; null shows all combinations alike"
    )


class Stratified(CombinationSampler):
    """Each batch holds every combination in its exact share, as far as whole samples go, in random order.

    Scores per combination then vary less from batch to batch than with independent draws. A sample that lacks
    modalities of its combination shows the rest, so shares are exact on complete data alone.

    Args:
        modalities: In column order.
        weights: Combination -> weight; None means all alike.

    Raises:
        RobustmmError: an unknown modality, or one combination twice.
    """

    def __init__(self, modalities: Sequence[str], weights: Mapping[str, float] | None) -> None:
        self.table, self.weights = weight_table(weights, modalities)

    def __call__(self, observed: Tensor, generator: torch.Generator) -> Tensor:
        """See `robustmm.masks.draw_stratified`."""
        return draw_stratified(self.table, self.weights, observed, generator)


@hookimpl
def robustmm_register_samplers(register: Callable[[Component], None]) -> None:
    """Offer exact shares."""
    register(
        Component(
            "stratified",
            Stratified,
            StratifiedOptions,
            "Each batch holds the combinations in exact shares.",
            "own",
        )
    )
