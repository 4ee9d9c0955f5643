"""What one run's protocol comes down to: a few quantities to compare by, and the points that they are means of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustmm.engine.scores import counted
from robustmm.report.results import COMBINATIONS

Record = Mapping[str, Any]
#: Of the combination table, what a comparison shows; ``drop`` follows from them.
COMBINATION_QUANTITIES = ("mean", "worst", "complete")


@dataclass(frozen=True)
class Layout:
    """How the rows of a protocol are named.

    Args:
        series: Keys of a row that name its curve, or the row itself where there are no curves.
        along: Key of the number along a curve; None where there are no curves.
        over: What the mean is over, in words; empty where rows are of different kinds and each is a quantity.
    """

    series: tuple[str, ...]
    along: str | None = None
    over: str = "rows"


LAYOUTS: Mapping[str, Layout] = {
    COMBINATIONS: Layout(("combination",), over="combinations"),
    "missing-rate": Layout(("pattern", "modality"), "rate", "rates"),
    "corruption": Layout(("modality", "corruption"), "severity", "corruptions and severities"),
    "noise": Layout(("modality", "noise"), "strength", "strengths"),
    "expected": Layout(("name",), over=""),
    "calibration": Layout(("combination",), over="combinations"),
}


@dataclass(frozen=True)
class Point:
    """One measured score; several draws at one place are averaged.

    Args:
        name: In full, such as ``rgb+depth`` or ``bernoulli 0.3``.
        series: The curve that it lies on; the name itself where there are no curves.
        at: Place along the curve; None where there are no curves.
        value: None where it could not be measured.
    """

    name: str
    series: str
    at: float | None
    value: float | None


@dataclass(frozen=True)
class Measures:
    """A run in one protocol and one score.

    Args:
        quantities: Headline name -> value; what is tested.
        points: In the order of the record.
        degenerate: Names of the points where the model gives one answer for everything.
    """

    quantities: Mapping[str, float | None]
    points: tuple[Point, ...]
    degenerate: tuple[str, ...]


def full_scale(record: Record, metric: str, values: Sequence[float]) -> float:
    """What a full bar of a score stands for: 1 where every value lies within 0 and 1, else the largest value.

    Errors of quantities have a unit, so that 1 means nothing there: always the largest value.
    """
    largest = float(max(values, default=1.0))
    if "targets" in record and record["directions"][metric] == "min":
        return largest if largest > 0 else 1.0
    return max(largest, 1.0)


def layout_of(protocol: str) -> Layout | None:
    """How a protocol's rows are named; None for one that cannot be compared over seeds, such as ``latency``."""
    base = COMBINATIONS if protocol.startswith(f"{COMBINATIONS}-") else protocol  # with an adapter
    return LAYOUTS.get(base)


def main_metric(record: Record) -> str:
    """The record's main score, or its first one where the protocol measures something else, such as calibration."""
    known = list(record["rows"][0]["metrics"])
    return str(record["score"]) if record["score"] in known else known[0]


def point_names(record: Record, layout: Layout) -> set[str]:
    """What was measured."""
    return {_point_name(row, layout) for row in record["rows"]}


def measure(
    record: Record, metric: str, layout: Layout, direction: str, without: Collection[str] = frozenset()
) -> Measures:
    """Sum a record up.

    Args:
        record: Of a protocol.
        metric: Which score.
        layout: Of the protocol, see `layout_of`.
        direction: ``max`` or ``min``.
        without: Points that are left out of means, because another run has no value there.
    """
    rows = [{"degenerate": False, **row} for row in record["rows"]]
    values = counted(rows, metric, direction, record.get("chances", {}).get(metric))
    degenerate = dict.fromkeys(_point_name(row, layout) for row in rows if row["degenerate"])
    if metric in record.get("aggregates", {}).get("mean", {}):
        quantities = {name: record["aggregates"][name][metric] for name in COMBINATION_QUANTITIES}
        return Measures(quantities, _points(rows, [row["metrics"][metric] for row in rows], layout), tuple(degenerate))
    points = _points(rows, values, layout)
    used = [point for point in points if point.name not in without]
    found = _quantities(record, metric, used) if layout.over else {point.name: point.value for point in points}
    return Measures(found, points, tuple(degenerate))


def _points(rows: Sequence[Record], values: Sequence[float | None], layout: Layout) -> tuple[Point, ...]:
    """One point per name, the mean of its rows; None where one of them has no value."""
    found: dict[str, list[float | None]] = {}
    places: dict[str, tuple[str, float | None]] = {}
    for row, value in zip(rows, values, strict=True):
        name = _point_name(row, layout)
        found.setdefault(name, []).append(value)
        places[name] = _series_name(row, layout), None if layout.along is None else row[layout.along]
    return tuple(Point(name, *places[name], mean_or_none(own)) for name, own in found.items())


def _series_name(row: Record, layout: Layout) -> str:
    return " ".join(str(row[key]) for key in layout.series if row.get(key) is not None)


def _point_name(row: Record, layout: Layout) -> str:
    series = _series_name(row, layout)
    return series if layout.along is None else f"{series} {row[layout.along]:g}"


def _quantities(record: Record, metric: str, points: Sequence[Point]) -> dict[str, float | None]:
    """The mean over all points, then of each curve where there are several, and the clean score where one is kept."""
    quantities = {"mean": mean_or_none([point.value for point in points])}
    curves = dict.fromkeys(point.series for point in points if point.at is not None)
    for name in curves if len(curves) > 1 else ():
        quantities[name] = mean_or_none([point.value for point in points if point.series == name])
    if metric in record.get("clean", {}):
        quantities["clean"] = record["clean"][metric]
    return quantities


def mean_or_none(values: Sequence[float | None]) -> float | None:
    """Mean; None where a value is missing, since means over different rows do not compare."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
