"""The noise sweeps of QMF and PDF: each modality of each test sample is noisy with a probability of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robustmm.corruption import Spread
from robustmm.engine.record import Alteration, Views
from robustmm.engine.recording import Recording, combination_view
from robustmm.protocols.altered import altered, digest_of
from robustmm.protocols.curves import curves
from robustmm.protocols.protocol import Protocol, row_of
from robustmm.seeding import generator_for
from robustmm.types import Batch, Modality

#: How many modalities of samples are noisy.
OUTER_PROBABILITY = 0.5
#: Grey levels of a picture, whatever its raw range.
GREY_LEVELS = 255.0
#: Share of a picture's pixels that salt and pepper hits, half with each.
SALT_PEPPER_DENSITY = 0.1
#: The strength at which every word, or here feature or moment, is replaced.
ALL_REPLACED = 10.0


class Draw(NamedTuple):
    """A place of the sweep."""

    noise: str
    strength: float
    seed: int


class Noise(Protocol):
    """Noise on every modality at once, while all are shown.

    Pictures follow the published scripts: ``gaussian`` adds N(0, epsilon**2) in grey levels, one channel for all, with
    probability 1/2; salt and pepper hits a tenth of the pixels with probability ``epsilon / 200`` (QMF) or
    ``epsilon / 20`` (PDF, tenfold). Values are clipped at both ends, where the published cast to 8 bits wraps negative
    ones; each sample has draws of its own, where the published code resets its seed, so that all pictures of one size
    get the same pattern.

    For other kinds of modalities ``gaussian`` follows what they do to text, whose words are lost with probability
    ``epsilon / 10``, with probability 1/2 per sample: each feature of a vector, or each moment of a sequence, becomes
    the mean. Salt and pepper leaves them as they are. That part is ours.

    Source:
        QMF (ICML 2023, arXiv:2306.02050) and PDF (ICML 2024), code QingyangZhang/QMF and Yinan-Xia/PDF.
    """

    name = "noise"

    def views(self) -> Views:
        """See `Protocol.views`."""
        made: dict[str, Alteration] = {
            self._view(draw): partial(self._altered, draw) for draw in self._draws() if draw.strength > 0
        }
        return Views([self.subject.modalities], made)

    def result(self, recording: Recording) -> dict[str, Any]:
        """See `Protocol.result`."""
        keep = recording.observed.any(dim=1)
        rows = []
        for draw in self._draws():
            view = self._view(draw) if draw.strength > 0 else combination_view(self.subject.modalities)
            tally = self.subject.tally(recording.views[view], recording.target, keep)
            rows.append(row_of(tally, **draw._asdict()))
        return {"rows": rows, "curves": curves(rows, ("noise", "strength"))}

    def _draws(self) -> Iterator[Draw]:
        section = self.subject.assembly.config.evaluation.noise
        for kind in section.kinds:
            for strength in section.strengths:
                for seed in range(section.seeds):
                    yield Draw(kind, strength, seed)

    def _view(self, draw: Draw) -> str:
        facts = {name: [one.low, one.high, one.mean] for name, one in self.subject.spreads.items()}
        return f"noise/{draw.noise}/{draw.strength:g}/{draw.seed}@{digest_of(facts)}"

    def _altered(self, draw: Draw, batch: Batch) -> dict[str, Tensor]:
        def change(modality: Modality) -> Callable[[Tensor, int], Tensor]:
            def one(value: Tensor, row: int) -> Tensor:
                generator = generator_for("noise", draw.noise, draw.seed, modality.name, batch.ids[row])
                return noisy(value, draw, modality, self.subject.spreads[modality.name], generator)

            return one

        return altered(batch, {modality.name: change(modality) for modality in self.subject.assembly.parts.modalities})


def noisy(value: Tensor, draw: Draw, modality: Modality, spread: Spread, generator: torch.Generator) -> Tensor:
    """One sample's raw values under a draw; what was not measured stays so."""
    picture = modality.kind == "image"
    probability = {
        "gaussian": OUTER_PROBABILITY,
        "salt_pepper_qmf": OUTER_PROBABILITY * draw.strength / 100,
        "salt_pepper_pdf": OUTER_PROBABILITY * draw.strength / 10,
    }[draw.noise]
    if float(torch.rand((), generator=generator)) >= probability or (draw.noise != "gaussian" and not picture):
        return value
    if draw.noise != "gaussian":
        changed = _salt_pepper(value, spread, generator)
    elif picture:
        changed = _grey_noise(value, draw.strength, spread, generator)
    else:
        changed = _replaced(value, draw.strength, spread, generator)
    invalid = modality.scaling.invalid
    return changed if invalid is None else torch.where(value == invalid, value, changed)


def _grey_noise(value: Tensor, strength: float, spread: Spread, generator: torch.Generator) -> Tensor:
    level = (spread.high - spread.low) / GREY_LEVELS
    pattern = torch.randn(value.shape[1:], generator=generator)
    return (value + strength * level * pattern).clamp(spread.low, spread.high)


def _salt_pepper(value: Tensor, spread: Spread, generator: torch.Generator) -> Tensor:
    draw = torch.rand(value.shape[1:], generator=generator)
    salted = torch.where(draw < SALT_PEPPER_DENSITY / 2, torch.tensor(spread.high), value)
    return torch.where(draw > 1 - SALT_PEPPER_DENSITY / 2, torch.tensor(spread.low), salted)


def _replaced(value: Tensor, strength: float, spread: Spread, generator: torch.Generator) -> Tensor:
    """Features of a vector, or moments of anything with an axis of time, become the mean."""
    places = value.shape if value.ndim == 1 else value.shape[-1:]
    lost = torch.rand(places, generator=generator) < strength / ALL_REPLACED
    mean = torch.tensor(spread.mean).view(-1, *[1] * (value.ndim - 1))
    return torch.where(lost, mean.expand_as(value), value)
