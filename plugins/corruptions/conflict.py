"""Modalities that tell of different things."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from robustmm import Component, Corruption, Modality, Options, Spread, hookimpl

from ._levels import Shares


class ConflictOptions(Options):
    """Options of conflict."""

    levels: Shares = Field(
        (0.2, 0.4, 0.6, 0.8, 1.0), description="probability in each severity that the value is another sample's"
    )


class Conflict(Corruption):
    """With probability ``level`` the modality is that of another sample, of another class where there are classes.

    RCML takes 40 % of the samples, which is severity 2, and one random modality of each.
    """

    needs_other = True
    keeps_places = False

    def __init__(self, modality: Modality, spread: Spread, levels: tuple[float, ...]) -> None:
        super().__init__(modality, spread)
        self.levels = levels

    def corrupt(self, value: Tensor, severity: int, generator: torch.Generator, other: Tensor | None) -> Tensor:
        """See `Corruption.corrupt`."""
        assert other is not None, "needs_other, which the base class checks"
        swapped = float(torch.rand((), generator=generator)) < self.levels[severity - 1]
        return other.clone() if swapped else value.clone()


@hookimpl
def robustmm_register_corruptions(register: Callable[[Component], None]) -> None:
    """Offer conflict."""
    register(
        Component(
            "conflict",
            Conflict,
            ConflictOptions,
            "The value of another sample, so that modalities contradict each other; for any modality.",
            "conflicting test sets of Xu et al., AAAI 2024, arXiv:2402.16897 (RCML), with a random sample",
            fidelity="part",
        )
    )
