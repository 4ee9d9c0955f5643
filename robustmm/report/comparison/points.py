"""What the means are made of: every combination, or curves over rates, severities and strengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustmm.report.curves import Plot, Point, curve_figure
from robustmm.report.figure import Figure
from robustmm.report.heat import span_of, tint
from robustmm.report.sections.section import Section

#: Up to this many curves are drawn large.
MOST_LARGE = 2
TITLES = {None: "Row by row", "rate": "Curves over missing rate", "severity": "Curves over severity"}


@dataclass(frozen=True)
class PointCell:
    """One group at one place.

    Args:
        mean: Over seeds; None where no seed has a value.
        sd: Deviation over seeds; None where fewer than two have a value.
        tint: Strength of the cell's colour in percent: the difference from the reference.
        kind: ``loss`` or ``gain``.
    """

    mean: float | None
    sd: float | None
    tint: float
    kind: str


def point_sections(compared: Mapping[str, Any]) -> Iterator[Section]:
    """Always one."""
    along = compared["along"]
    names = [point["name"] for point in compared["groups"][0]["points"]]
    gains = _gains(compared)
    span = span_of((gain for own in gains for gain in own), compared["scale"])
    content = {
        "figures": _figures(compared) if along else [],
        "series": {group["label"]: place for place, group in enumerate(compared["groups"])},
        "rows": dict(zip(names, _cells(compared, gains, span), strict=True)),
        "span": span,
        "what": along or "combination",
    }
    title = "Combination by combination" if "combination" in _first_words(compared) else TITLES.get(along)
    title = title or f"Curves over {along}"
    yield Section("points", title, "Curves" if along else "Rows", "comparison/points", content)


def _first_words(compared: Mapping[str, Any]) -> str:
    return str(compared["mean_over"] or "") if compared["along"] is None else ""


def _gains(compared: Mapping[str, Any]) -> list[list[float]]:
    """Group by group, how much better than the reference each place is."""
    sign = 1 if compared["direction"] == "max" else -1
    columns = [group["points"] for group in compared["groups"]]
    return [[_gain(own, first, sign) for own, first in zip(points, columns[0], strict=True)] for points in columns]


def _cells(compared: Mapping[str, Any], gains: Sequence[Sequence[float]], span: float) -> list[list[PointCell]]:
    """Place by place, a cell for each group."""
    columns = [group["points"] for group in compared["groups"]]
    cells = [
        [
            PointCell(point["mean"], point["sd"], tint(abs(gain), span), "loss" if gain < 0 else "gain")
            for point, gain in zip(points, own, strict=True)
        ]
        for points, own in zip(columns, gains, strict=True)
    ]
    return [list(row) for row in zip(*cells, strict=True)]


def _gain(own: Mapping[str, Any], first: Mapping[str, Any], sign: int) -> float:
    if own["mean"] is None or first["mean"] is None:
        return 0.0
    return float(sign * (own["mean"] - first["mean"]))


def _figures(compared: Mapping[str, Any]) -> list[Figure]:
    """One figure for each curve, a line for each group, with a band of deviations over seeds."""
    names = list(dict.fromkeys(point["series"] for point in compared["groups"][0]["points"]))
    small = len(names) > MOST_LARGE
    found = []
    for name in names:
        curves = {group["label"]: _curve(group["points"], name) for group in compared["groups"]}
        plot = Plot(name, compared["along"], compared["metric"], small=small, y_values=_values(compared, small))
        figure = curve_figure(curves, plot)
        if figure is not None:
            found.append(figure)
    return found


def _values(compared: Mapping[str, Any], shared: bool) -> list[float]:
    """Every mean, so that small figures share their scale."""
    points = [point for group in compared["groups"] for point in group["points"]] if shared else []
    return [point["mean"] for point in points if point["mean"] is not None]


def _curve(points: Sequence[Mapping[str, Any]], series: str) -> list[Point]:
    own = [point for point in points if point["series"] == series and point["mean"] is not None]
    return [Point(point["at"], point["mean"], point["sd"]) for point in sorted(own, key=lambda point: point["at"])]
