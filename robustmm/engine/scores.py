"""From counts to scores: per combination, mean, worst, complete and drop, with degenerate predictions held down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustmm.engine.evaluate import Evaluation, Tally
from robustmm.masks import AGGREGATES, combination_name
from robustmm.metrics.metric import Metric
from robustmm.tasks.task import Direction, Task


@dataclass(frozen=True)
class Summary:
    """Scores of one evaluation.

    Args:
        rows: One per combination: name, metrics, counts, flags, and ``per_class`` where the task scores classes.
        unimodal: One per modality, where asked for.
        aggregates: ``mean``, ``worst``, ``complete`` and ``drop`` (complete minus mean) by metric.
        flat: Everything as ``<combination or aggregate>/<metric>``, for selection and logs.
    """

    rows: list[dict[str, Any]]
    unimodal: list[dict[str, Any]]
    aggregates: dict[str, dict[str, float | None]]
    flat: dict[str, float | None]


def directions_of(task: Task, extra: Mapping[str, Metric]) -> dict[str, Direction]:
    """Metric -> ``max`` or ``min``, of a task and of metric plugins."""
    return {**task.directions, **{name: metric.direction for name, metric in extra.items()}}


def summarise(evaluation: Evaluation, task: Task, directions: Mapping[str, str]) -> Summary:
    """Divide the counts.

    A degenerate combination (one class or value for everything, or non-finite logits) keeps its measured values in its
    row, with a flag. In mean and worst it counts with no more than a constant prediction deserves, see `Task.chances`.
    Without a value of its own, while others have one, it counts with chance or the largest of the others' errors.

    Args:
        evaluation: Counts.
        task: Of the run.
        directions: Metric -> ``max`` or ``min``, of the task and of metric plugins.
    """
    rows = [_row(combination_name(combo), tally) for combo, tally in evaluation.combinations.items()]
    unimodal = [_row(name, tally) for name, tally in evaluation.unimodal.items()]
    names = [row["combination"] for row in rows]
    whole = combination_name(evaluation.modalities)
    chances = task.chances(directions)
    aggregates: dict[str, dict[str, float | None]] = {name: {} for name in AGGREGATES}
    by_row: dict[str, list[float | None]] = {}
    for metric in rows[0]["metrics"]:
        own = counted(rows, metric, directions[metric], chances[metric])
        by_row[metric] = own
        known = [value for value in own if value is not None]
        worst = min if directions[metric] == "max" else max
        mean = sum(known) / len(known) if known else None
        complete = own[names.index(whole)] if whole in names else None
        aggregates["mean"][metric] = mean
        aggregates["worst"][metric] = worst(known) if known else None
        aggregates["complete"][metric] = complete
        aggregates["drop"][metric] = None if mean is None or complete is None else complete - mean
    flat = {f"{name}/{metric}": value for name, values in aggregates.items() for metric, value in values.items()}
    for place, row in enumerate(rows):
        flat |= {f"{row['combination']}/{metric}": values[place] for metric, values in by_row.items()}
    return Summary(rows, unimodal, aggregates, flat)


def _row(name: str, tally: Tally) -> dict[str, Any]:
    per_class = tally.metrics.per_class()
    return {
        "combination": name,
        "metrics": tally.compute(),
        "samples": tally.metrics.count,
        "excluded": tally.excluded,
        "incomplete": tally.incomplete,
        "degenerate": tally.metrics.degenerate,
        **({"per_class": per_class} if per_class else {}),
    }


def counted(rows: Sequence[Mapping[str, Any]], metric: str, direction: str, chance: float | None) -> list[float | None]:
    """What each row counts with in summaries; None where it has no value. See `summarise` for degenerate rows.

    Args:
        rows: Of one evaluation.
        metric: Its name.
        direction: ``max`` or ``min``.
        chance: What a constant prediction deserves; None holds no value down.
    """
    values = [_finite(row["metrics"][metric]) for row in rows]
    known = [value for value in values if value is not None]
    if not known:
        return values
    return [
        _held_down(value, direction, chance, known) if row["degenerate"] else value
        for value, row in zip(values, rows, strict=True)
    ]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _held_down(value: float | None, direction: str, chance: float | None, known: Sequence[float]) -> float:
    """What a degenerate row counts with, among the values ``known`` of all rows."""
    worse = min if direction == "max" else max
    if value is not None:
        return value if chance is None else worse(value, chance)
    if direction == "max" and chance is not None:
        return chance
    return worse(known if chance is None else [chance, *known])
