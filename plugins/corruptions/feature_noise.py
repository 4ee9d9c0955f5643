"""Gaussian noise in units of each feature's deviation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from robustmm import Component, Options, hookimpl

from ._levels import Levelled, Positives
from ._pictures import normal_like


class FeatureNoiseOptions(Options):
    """Options of noise on features."""

    levels: Positives = Field(
        (0.1, 0.25, 0.5, 1.0, 2.0),
        description="deviation of the noise in each severity, in deviations of the feature in training",
    )


class FeatureNoise(Levelled):
    """``x + level * std * n``, n standard normal, std that of the feature or channel; nothing is clipped."""

    def at_level(self, value: Tensor, level: float, generator: torch.Generator) -> Tensor:
        """See `Levelled.at_level`."""
        return value + level * self.per_channel(self.spread.std) * normal_like(value, generator)


@hookimpl
def robustmm_register_corruptions(register: Callable[[Component], None]) -> None:
    """Offer noise on features."""
    register(
        Component(
            "feature_noise",
            FeatureNoise,
            FeatureNoiseOptions,
            "Gaussian noise in units of each feature's deviation in training, for any modality.",
            "own; 0.5 is near what Xu et al., AAAI 2024 (RCML) add to features in [0, 1]",
        )
    )
