"""Scores to be expected where modalities fail with given probabilities, from the table of combinations alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from robustmm.engine.record import Views
from robustmm.engine.recording import Recording
from robustmm.engine.scores import counted
from robustmm.errors import ConfigError, did_you_mean
from robustmm.masks import all_combinations, combination_name
from robustmm.protocols.combinations import Combinations
from robustmm.protocols.protocol import Protocol, row_of
from robustmm.types import Combination


def combination_probabilities(drop: Mapping[str, float]) -> dict[Combination, float]:
    """How likely each non-empty combination is where modalities fail independently, given that not all fail.

    Args:
        drop: Modality -> probability that it is missing, in column order.

    Raises:
        ConfigError: all modalities are always missing.
    """
    every: list[Combination] = all_combinations([*drop])
    weights = {combo: math.prod(1 - p if name in combo else p for name, p in drop.items()) for combo in every}
    total = math.fsum(weights.values())
    if total <= 0:
        raise ConfigError(["evaluation.expected: with these probabilities every modality is always missing"])
    return {combo: weight / total for combo, weight in weights.items()}


def expectation(weights: Mapping[Combination, float], scores: Mapping[Combination, float | None]) -> float | None:
    """Weighted mean of scores; None where a combination that can occur has none."""
    used = {combo: weight for combo, weight in weights.items() if weight > 0}
    values = [scores[combo] for combo in used]
    if any(value is None for value in values):
        return None
    return math.fsum(weight * value for weight, value in zip(used.values(), values, strict=True) if value is not None)


class Expected(Protocol):
    """Expected scores, and the plain averages over all and over all damaged combinations.

    A degenerate combination counts with no more than chance, as in every mean.

    Source:
        Liao et al. (CVPR 2025 workshop, arXiv:2503.18445) on DELIVER: the average over combinations, and the
        expectation under independent failures with p = 0.05, 0.1, 0.2. Theirs is not conditioned in the text that we
        read; here the case that nothing is left is taken out.
    """

    name = "expected"

    def views(self) -> Views:
        """See `Protocol.views`."""
        return Views(all_combinations(self.subject.modalities))

    def result(self, recording: Recording) -> dict[str, Any]:
        """See `Protocol.result`."""
        scores, names = self._scores(recording), self.subject.modalities
        section = self.subject.assembly.config.evaluation.expected
        every = all_combinations(names)
        damaged = [combo for combo in every if len(combo) < len(names)]
        rows = [_row("mean of all combinations", None, _uniform(every), scores)]
        if damaged:
            rows.append(_row("mean of damaged combinations", None, _uniform(damaged), scores))
        for probability in section.probabilities:
            drop: dict[str, float] = dict.fromkeys(names, probability)
            name = f"every modality fails with {probability:g}"
            rows.append(_row(name, drop, combination_probabilities(drop), scores))
        if section.drop:
            drop = self._own_drop(section.drop)
            words = ", ".join(f"{name} {p:g}" for name, p in drop.items())
            rows.append(_row(f"failures: {words}", drop, combination_probabilities(drop), scores))
        return {"rows": rows}

    def _own_drop(self, given: Mapping[str, float]) -> dict[str, float]:
        names = self.subject.modalities
        wrong = [name for name in given if name not in names]
        if wrong:
            hint = did_you_mean(wrong[0], names)
            raise ConfigError([f"evaluation.expected.drop.{wrong[0]}: no such modality{hint} ({', '.join(names)})"])
        return {name: given.get(name, 0.0) for name in names}

    def _scores(self, recording: Recording) -> dict[str, dict[Combination, float | None]]:
        """Metric -> combination -> what it counts with."""
        subject, task = self.subject, self.subject.method.task
        protocol = Combinations(subject)
        combos = all_combinations(subject.modalities)
        tallies = [protocol.tally(recording, combo) for combo in combos]
        rows = [row_of(tally) for tally in tallies]
        directions = subject.assembly.directions()
        chances = task.chances(directions)
        return {
            metric: dict(zip(combos, counted(rows, metric, directions[metric], chances[metric]), strict=True))
            for metric in rows[0]["metrics"]
        }


def _uniform(combos: Sequence[Combination]) -> dict[Combination, float]:
    return {combo: 1 / len(combos) for combo in combos}


def _row(
    name: str,
    drop: Mapping[str, float] | None,
    weights: Mapping[Combination, float],
    scores: Mapping[str, Mapping[Combination, float | None]],
) -> dict[str, Any]:
    return {
        "name": name,
        "drop": drop,
        "metrics": {metric: expectation(weights, values) for metric, values in scores.items()},
        "weights": {combination_name(combo): weight for combo, weight in weights.items()},
    }
