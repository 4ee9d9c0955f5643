"""What a reader wants to know of one protocol's rows: how scores fall, what each modality brings, what to beware of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from robustmm.engine.scores import counted
from robustmm.tasks.task import DEGENERATE_ERROR

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Spread:
    """Scores of the combinations with one number of present modalities.

    Args:
        size: Present modalities.
        count: Combinations.
        low: Smallest score; None where no combination has one, like the two that follow.
        mean: Mean score.
        high: Largest score.
        degenerate: How many of the combinations are degenerate.
    """

    size: int
    count: int
    low: float | None
    mean: float | None
    high: float | None
    degenerate: int


@dataclass(frozen=True)
class Worth:
    """What one modality brings; every value is None where no combination can tell.

    Like is compared with like: over the pairs of combinations that differ in this modality only. A mean over all the
    combinations that have it would hold the modality alone, which has no partner without it, and so make a weak
    modality look harmful.

    Args:
        modality: Its name.
        absent: Mean score of the pairs' halves without it.
        present: Mean score of the halves with it.
        gain: ``present - absent``.
        alone: Score of the fused model shown this modality only.
        own: Score of the modality's own prediction.
        alone_degenerate: Whether the fused model shown this modality only is degenerate.
        own_degenerate: Whether the own prediction is.
    """

    modality: str
    absent: float | None
    present: float | None
    gain: float | None
    alone: float | None
    own: float | None
    alone_degenerate: bool
    own_degenerate: bool


@dataclass(frozen=True)
class Remark:
    """Something to know before a number is quoted.

    Args:
        kind: ``warning`` where numbers may mislead, ``note`` where they need a word.
        text: In full.
    """

    kind: Literal["warning", "note"]
    text: str


def members(row: Row) -> tuple[str, ...]:
    """The modalities of a row's combination."""
    return tuple(row["combination"].split("+"))


def modalities_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """Every modality that a row names, in the order of the largest combination."""
    largest_first = sorted(rows, key=lambda row: -len(members(row)))
    return tuple(dict.fromkeys(name for row in largest_first for name in members(row)))


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the known values; None without one."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def counted_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows with what each counts with in mean and worst in place of its measured scores.

    They differ in degenerate rows, which count no more than chance, so that every mean on the page agrees.

    Args:
        record: Of `robustmm.report.results.protocol_record`, with ``directions`` and ``chances``.
    """
    rows = record["rows"]
    if not any(row["degenerate"] for row in rows):
        return list(rows)
    directions, chances = record["directions"], chances_of(record)
    columns = {metric: counted(rows, metric, directions[metric], chances[metric]) for metric in rows[0]["metrics"]}
    return [
        {**row, "metrics": {metric: column[place] for metric, column in columns.items()}}
        for place, row in enumerate(rows)
    ]


def chances_of(record: Mapping[str, Any]) -> Mapping[str, float | None]:
    """What a constant prediction deserves in each metric; results of older runs, of classes all, tell one number."""
    if "chances" in record:
        return cast(Mapping[str, float | None], record["chances"])
    ways = record["directions"]
    return {metric: record["chance"] if way == "max" else DEGENERATE_ERROR for metric, way in ways.items()}


def spread_by_size(rows: Sequence[Row], metric: str) -> list[Spread]:
    """Scores by number of present modalities, few first; of `counted_rows`, to agree with the mean over all."""
    sizes: dict[int, list[Row]] = {}
    for row in rows:
        sizes.setdefault(len(members(row)), []).append(row)
    return [_spread(size, sizes[size], metric) for size in sorted(sizes)]


def _spread(size: int, rows: Sequence[Row], metric: str) -> Spread:
    known = [row["metrics"][metric] for row in rows if row["metrics"][metric] is not None]
    degenerate = sum(row["degenerate"] for row in rows)
    return Spread(
        size, len(rows), min(known, default=None), mean(known), max(known, default=None), degenerate=degenerate
    )


def worth_of_modalities(record: Mapping[str, Any], metric: str) -> list[Worth]:
    """What each modality brings to the scores of `counted_rows`, in the order of the modalities.

    A modality's scores on its own are the measured ones, with a flag.

    Args:
        record: Of `robustmm.report.results.protocol_record`.
        metric: Name of the score.
    """
    scores = {frozenset(members(row)): row["metrics"][metric] for row in counted_rows(record)}
    alone = {row["combination"]: row for row in record["rows"]}
    own = {row["combination"]: row for row in record["unimodal"]["rows"]}
    return [
        _worth(name, metric, scores, alone=alone.get(name), own=own.get(name)) for name in modalities_of(record["rows"])
    ]


def _worth(
    name: str, metric: str, scores: Mapping[frozenset[str], float | None], *, alone: Row | None, own: Row | None
) -> Worth:
    pairs = []
    for combination, before in scores.items():
        after = scores.get(combination | {name})
        if name not in combination and before is not None and after is not None:
            pairs.append((before, after))
    absent, present = mean(before for before, _ in pairs), mean(after for _, after in pairs)
    return Worth(
        modality=name,
        absent=absent,
        present=present,
        gain=None if absent is None or present is None else present - absent,
        alone=None if alone is None else alone["metrics"][metric],
        own=None if own is None else own["metrics"][metric],
        alone_degenerate=alone is not None and alone["degenerate"],
        own_degenerate=own is not None and own["degenerate"],
    )


@dataclass(frozen=True)
class ClassScores:
    """Scores of each class, for some combinations.

    Args:
        columns: What each value of a row belongs to: ``complete``, ``worst (depth)``, ``mean of 3``.
        rows: Class by class: score (``iou``, ``dice``) -> one value per column.
    """

    columns: tuple[str, ...]
    rows: tuple[Mapping[str, tuple[float | None, ...]], ...]


def class_scores(record: Mapping[str, Any]) -> ClassScores | None:
    """Scores by class of the complete and of the worst combination, and their mean over all; None without any.

    The values are the measured ones, those of degenerate combinations too.

    Args:
        record: Of `robustmm.report.results.protocol_record`.
    """
    rows = [row for row in record["rows"] if row.get("per_class")]
    if not rows:
        return None
    chosen = {row["combination"]: row for row in rows}
    columns: dict[str, list[Row]] = {}
    if len(rows) > 1:
        complete, worst = largest_of(rows), worst_of(record)
        columns["complete"] = [chosen[complete]]
        columns |= {f"worst ({worst})": [chosen[worst]]} if worst in chosen else {}
    columns[f"mean of {len(rows)}" if len(rows) > 1 else rows[0]["combination"]] = rows
    table = [
        {
            name: tuple(mean(row["per_class"][name][place] for row in group) for group in columns.values())
            for name in rows[0]["per_class"]
        }
        for place in range(len(record["classes"]))
    ]
    return ClassScores(tuple(columns), tuple(table))


def largest_of(rows: Sequence[Row]) -> str:
    """The combination with the most modalities."""
    return str(max(rows, key=lambda row: len(members(row)))["combination"])


def worst_of(record: Mapping[str, Any]) -> str | None:
    """The combination that counts least in the main score; None where none has a value."""
    score = record["score"]
    known = [row for row in counted_rows(record) if row["metrics"][score] is not None]
    worst = min if record["directions"][score] == "max" else max
    return str(worst(known, key=lambda row: row["metrics"][score])["combination"]) if known else None


def name_worst(record: Mapping[str, Any], metric: str) -> str:
    """The combination behind the worst score, in words."""
    worst = record["aggregates"]["worst"][metric]
    for row in record["rows"]:
        if worst is not None and row["metrics"][metric] == worst:
            return str(row["combination"])
    return "a degenerate combination, counted as chance" if record["degenerate"] else ""


def changes(record: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, float | None]:
    """What an adapter changes in the main score, by combination and by summary; None where either has no value.

    Args:
        record: With an adapter.
        before: Without one, of the same run.
    """
    score = record["score"]
    old = {row["combination"]: row["metrics"][score] for row in before["rows"]}
    new = {row["combination"]: row["metrics"][score] for row in record["rows"]}
    old |= {name: values[score] for name, values in before["aggregates"].items()}
    new |= {name: values[score] for name, values in record["aggregates"].items()}
    return {name: _difference(value, old.get(name)) for name, value in new.items()}


def _difference(new: float | None, old: float | None) -> float | None:
    return None if new is None or old is None else new - old
