"""Single values that are lost."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from robustmm import Component, Options, hookimpl

from ._levels import Levelled, Shares


class FeatureDropoutOptions(Options):
    """Options of lost features."""

    levels: Shares = Field((0.1, 0.2, 0.3, 0.5, 0.7), description="probability that a value is lost in each severity")


class FeatureDropout(Levelled):
    """Each feature of a vector, or each position of another modality in all channels, becomes its mean in training."""

    def at_level(self, value: Tensor, level: float, generator: torch.Generator) -> Tensor:
        """See `Levelled.at_level`."""
        places = value.shape if value.dim() == 1 else value.shape[1:]
        lost = torch.rand(places, generator=generator) < level
        return torch.where(lost, self.per_channel(self.spread.mean), value)


@hookimpl
def robustmm_register_corruptions(register: Callable[[Component], None]) -> None:
    """Offer lost features."""
    register(
        Component(
            "feature_dropout",
            FeatureDropout,
            FeatureDropoutOptions,
            "Single features, pixels or moments replaced by their mean in training, for any modality.",
            "own",
        )
    )
