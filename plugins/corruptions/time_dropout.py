"""Spans of time that are lost."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from robustmm import Component, Modality, Options, Spread, hookimpl

from ._levels import Levelled, Shares


class TimeDropoutOptions(Options):
    """Options of lost spans."""

    levels: Shares = Field((0.1, 0.2, 0.3, 0.5, 0.7), description="share of the time that is lost in each severity")
    spans: int = Field(3, ge=1, description="lost spans, one in each of as many equal parts of the time")
    fill: Literal["mean", "zero"] = Field(
        "mean", description="what stands in a lost span: the channel's mean in training, or 0"
    )


class TimeDropout(Levelled):
    """Equal parts of the time, the last axis, lose a span each, at a random place and in all channels at once."""

    def __init__(
        self,
        modality: Modality,
        spread: Spread,
        levels: tuple[float, ...],
        spans: int,
        fill: Literal["mean", "zero"],
    ) -> None:
        super().__init__(modality, spread, levels)
        self.spans = spans
        self.fill = self.per_channel(spread.mean if fill == "mean" else (0.0,) * len(spread.mean))

    def at_level(self, value: Tensor, level: float, generator: torch.Generator) -> Tensor:
        """See `Levelled.at_level`."""
        return torch.where(lost_spans(value.shape[-1], level, self.spans, generator), self.fill, value)


def lost_spans(length: int, share: float, spans: int, generator: torch.Generator) -> Tensor:
    """(T,) bool: what is lost of a line of time."""
    lost = torch.zeros(length, dtype=torch.bool)
    edges = [round(length * part / spans) for part in range(spans + 1)]
    places = torch.rand(spans, generator=generator).tolist()
    for (start, end), place in zip(pairwise(edges), places, strict=True):
        size = round(share * (end - start))
        first = start + int(place * (end - start - size + 1))
        lost[first : first + size] = True
    return lost


@hookimpl
def robustmm_register_corruptions(register: Callable[[Component], None]) -> None:
    """Offer lost spans."""
    register(
        Component(
            "time_dropout",
            TimeDropout,
            TimeDropoutOptions,
            "Spans of time without a signal, as of a bad connection.",
            "own",
            suits=frozenset({"sequence", "spectrogram"}),
        )
    )
