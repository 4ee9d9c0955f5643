"""Given probabilities of the combinations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from robustmm import CombinationSampler, Component, Options, draw_from, hookimpl

from ._table import Weights, weight_table


class WeightedOptions(Options):
    """Options of the sampler.

    Args:
        weights: Combination -> weight.
    """

    weights: Weights = Field(description="combination (such as rgb+depth) -> weight; those not named are never shown")

    @classmethod
    def contract_example(cls) -> dict[str, Any]:
        """One modality always."""
        return {"weights": {"m0": 1.0}}


class Weighted(CombinationSampler):
    """Each sample draws a combination with probability proportional to its weight.

    Args:
        modalities: In column order.
        weights: Combination -> weight.

    Raises:
        RobustmmError: an unknown modality, or one combination twice.
    """

    def __init__(self, modalities: Sequence[str], weights: Mapping[str, float]) -> None:
        self.table, self.weights = weight_table(weights, modalities)

    def __call__(self, observed: Tensor, generator: torch.Generator) -> Tensor:
        """See `robustmm.masks.draw_from`."""
        return draw_from(self.table, self.weights, observed, generator)


@hookimpl
def robustmm_register_samplers(register: Callable[[Component], None]) -> None:
    """Offer weighted combinations."""
    register(
        Component(
            "weighted",
            Weighted,
            WeightedOptions,
            "Each sample draws a combination with probability proportional to its weight.",
            "standard",
        )
    )
