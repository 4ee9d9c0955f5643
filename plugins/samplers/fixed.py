"""One combination throughout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from robustmm import CombinationSampler, Component, Options, hookimpl, keep_one, parse_combination, presence_of


class FixedOptions(Options):
    """Options of the sampler.

    Args:
        combination: Names joined by ``+``.
    """

    combination: str = Field(description="modalities to show, joined by '+', such as rgb+depth")

    @classmethod
    def contract_example(cls) -> dict[str, Any]:
        """One modality."""
        return {"combination": "m0"}


class Fixed(CombinationSampler):
    """Every sample shows one combination; a sample that has nothing of it keeps one modality, drawn uniformly.

    Args:
        modalities: In column order.
        combination: Names joined by ``+``.

    Raises:
        RobustmmError: an unknown modality.
    """

    def __init__(self, modalities: Sequence[str], combination: str) -> None:
        self.presence = presence_of(parse_combination(combination, modalities), modalities)

    def __call__(self, observed: Tensor, generator: torch.Generator) -> Tensor:
        """The combination, as far as a sample has it."""
        return keep_one(observed & self.presence, observed, generator)


@hookimpl
def robustmm_register_samplers(register: Callable[[Component], None]) -> None:
    """Offer one combination."""
    register(Component("fixed", Fixed, FixedOptions, "Every sample shows one given combination.", "standard"))
