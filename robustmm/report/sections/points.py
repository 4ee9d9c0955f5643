"""Points of curves over draws, as the sections on missing rates and on noise show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robustmm.report.curves import Point
from robustmm.report.run_files import Record


def curve_points(points: Sequence[Record], along: str, metric: str) -> list[Point]:
    """What is known of a curve, in order of place."""
    found = []
    for point in sorted(points, key=lambda one: one[along]):
        values = point["metrics"][metric]
        if values["mean"] is not None:
            found.append(Point(point[along], values["mean"], values["sd"]))
    return found


def with_counts(points: Sequence[Record], rows: Sequence[Record], by: Sequence[str]) -> list[dict[str, Any]]:
    """Each point with what its rows say: how many are degenerate, the most samples left out, and the rows themselves.

    Args:
        points: Of a record's ``curves``.
        rows: Of the same record.
        by: What makes a place.
    """
    places: dict[tuple[Any, ...], list[Record]] = {}
    for row in rows:
        places.setdefault(tuple(row[key] for key in by), []).append(row)
    found = []
    for point in points:
        own = places[tuple(point[key] for key in by)]
        found.append(
            {
                **point,
                "rows": own,
                "degenerate": sum(bool(row["degenerate"]) for row in own),
                "excluded": max(row["excluded"] for row in own),
            }
        )
    return found


def mean_over(rows: Sequence[Record], value: str, name: str | None = None) -> float:
    """Mean of a number that every row has, or of one within a mapping."""
    values: list[Any] = [row[value] if name is None else row[value][name] for row in rows]
    return float(sum(values) / len(values))


def metric_columns(points: Sequence[Record], metrics: Sequence[str]) -> list[str]:
    """The shown scores that points have."""
    known: Mapping[str, Any] = points[0]["metrics"]
    return [metric for metric in metrics if metric in known]
