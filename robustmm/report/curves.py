"""Curves of scores: over steps, epochs, missing rates, severities, with a band of deviations where there is one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from robustmm.report.figure import (
    BOTTOM,
    HEIGHT,
    RIGHT,
    SMALL_HEIGHT,
    SMALL_RIGHT,
    SMALL_WIDTH,
    STYLES,
    TOP,
    WIDTH,
    Axis,
    Dot,
    Figure,
    Series,
    Tick,
    axis_for,
    left_of,
    path_through,
    shortened,
    width_of,
)
from robustmm.report.tables import number

#: Points of one curve; longer records are averaged in stretches.
MOST_POINTS = 240
#: Losses further apart than this factor stand on a logarithmic axis.
LOG_FROM = 30.0
#: Curves with fewer points than this show them as dots too.
DOTTED_BELOW = 41
#: Units between two names beside their curves.
NAME_STEP = 16.0


class Point(NamedTuple):
    """A place on a curve.

    Args:
        x: Along the horizontal axis.
        y: The value.
        sd: Its deviation; None draws no band there.
    """

    x: float
    y: float
    sd: float | None = None


Curves = Mapping[str, Sequence[Point]]


class Plot(NamedTuple):
    """How curves are drawn.

    Args:
        title: Short.
        x_label: Of the horizontal axis.
        y_label: Of the vertical axis.
        may_log: Whether values far apart stand on a logarithmic axis.
        rule: A vertical line: where, and its label.
        level: A horizontal line: where, and its label; left out where no curve comes near it.
        names_beside: Names stand beside the curves instead of in a legend.
        small: One of many.
        y_values: What the vertical axis has room for besides the curves, so that several figures share one.
        whole: The horizontal axis has whole numbers alone.
        styles: Name -> number of its colour; by default in their order.
    """

    title: str
    x_label: str
    y_label: str
    may_log: bool = False
    rule: tuple[float, str] | None = None
    level: tuple[float, str] | None = None
    names_beside: bool = False
    small: bool = False
    y_values: Sequence[float] = ()
    whole: bool = False
    styles: Mapping[str, int] | None = None


def curve_figure(curves: Curves, plot: Plot) -> Figure | None:
    """Draw curves; None where no curve has a point."""
    drawn = {name: _thin(points) for name, points in curves.items() if points}
    if not drawn:
        return None
    height = SMALL_HEIGHT if plot.small else HEIGHT
    values = [edge for points in drawn.values() for point in points for edge in _edges(point)]
    log = plot.may_log and min(values) > 0 and max(values) / min(values) > LOG_FROM
    y = axis_for([*values, *plot.y_values], height - BOTTOM, TOP, log=log)
    y_ticks = y.ticks(4 if plot.small else 5)
    left, right = _sides(drawn, plot, y_ticks)
    x = axis_for([point.x for points in drawn.values() for point in points], left, right)
    styles = plot.styles or {name: place for place, name in enumerate(drawn)}
    series = [_series(name, styles[name] % STYLES, points, x, y) for name, points in drawn.items()]
    ticks = x.ticks(4 if plot.small else 5)
    level = plot.level if plot.level is not None and y.holds(plot.level[0]) else None
    return Figure(
        title=plot.title,
        text=_said(drawn, plot, level),
        x_label=plot.x_label,
        y_label="" if plot.small else f"{plot.y_label} (log scale)" if log else plot.y_label,
        x_ticks=tuple(tick for tick in ticks if float(tick.label).is_integer()) if plot.whole else ticks,
        y_ticks=y_ticks,
        series=tuple(_with_names(series, drawn, y) if plot.names_beside else series),
        rule=None if plot.rule is None else Tick(x.at(plot.rule[0]), plot.rule[1]),
        level=None if level is None else Tick(y.at(level[0]), level[1]),
        height=height,
        left=left,
        width=SMALL_WIDTH if plot.small else WIDTH,
        right=right,
        legend=not (plot.names_beside or plot.small),
    )


def _sides(drawn: Curves, plot: Plot, y_ticks: Sequence[Tick]) -> tuple[int, int]:
    """Left and right end of the plot."""
    if plot.small:
        return left_of(y_ticks, named=False), SMALL_WIDTH - SMALL_RIGHT
    beside = 8 + max(width_of(shortened(name)) for name in drawn) if plot.names_beside else 0
    return left_of(y_ticks), WIDTH - RIGHT - round(beside)


def _edges(point: Point) -> tuple[float, ...]:
    return (point.y,) if point.sd is None else (point.y - point.sd, point.y + point.sd)


def _said(drawn: Curves, plot: Plot, level: tuple[float, str] | None) -> str:
    said = "; ".join(f"{name} from {points[0].y:.4g} to {points[-1].y:.4g}" for name, points in drawn.items())
    marks = [f" Line at {mark[1]}." for mark in (plot.rule, level) if mark is not None]
    return f"{plot.title} by {plot.x_label}: {said}." + "".join(marks)


def _series(name: str, style: int, points: Sequence[Point], x: Axis, y: Axis) -> Series:
    places = [(x.at(point.x), y.at(point.y)) for point in points]
    dots: tuple[Dot, ...] = ()
    if len(points) < DOTTED_BELOW:
        dots = tuple(Dot(*place, _label(name, point)) for place, point in zip(places, points, strict=True))
    return Series(name, style, path=path_through(places), dots=dots, band=_band(points, x, y))


def _label(name: str, point: Point) -> str:
    spread = "" if point.sd is None else f" ± {number(point.sd)}"
    return f"{name}, {point.x:g}: {number(point.y)}{spread}"


def _band(points: Sequence[Point], x: Axis, y: Axis) -> str:
    """The outline of mean ± deviation; none where no point has a deviation above 0."""
    known = [(point, point.sd) for point in points if point.sd is not None]
    if len(known) < 2 or not any(sd for _, sd in known):
        return ""
    above = [(x.at(point.x), y.at(point.y + sd)) for point, sd in known]
    below = [(x.at(point.x), y.at(point.y - sd)) for point, sd in reversed(known)]
    return path_through([*above, *below])


def _with_names(series: Sequence[Series], drawn: Curves, y: Axis) -> list[Series]:
    """Each series with its name beside its last point, pushed apart so that names do not touch."""
    ends = [float(one.path.rpartition(" ")[2].split(",")[1]) for one in series]
    x = max(float(one.path.rpartition(" ")[2].split(",")[0]) for one in series) + 8
    order = sorted(range(len(series)), key=lambda place: ends[place])
    lowest = y.start
    tops: dict[int, float] = {}
    for rank, place in enumerate(order):
        before = tops[order[rank - 1]] + NAME_STEP if rank else -math.inf
        tops[place] = max(ends[place], before)
    for rank in range(len(order) - 1, -1, -1):  # what was pushed out below comes back up
        limit = lowest if rank == len(order) - 1 else tops[order[rank + 1]] - NAME_STEP
        tops[order[rank]] = min(tops[order[rank]], limit)
    return [
        Series(one.name, one.style, one.path, one.dots, one.band, Dot(x, round(tops[place], 1), shortened(one.name)))
        for place, one in enumerate(series)
    ]


def _thin(points: Sequence[Point]) -> list[Point]:
    """At most `MOST_POINTS` points: means of equally long stretches."""
    length = math.ceil(len(points) / MOST_POINTS)
    if length == 1:
        return list(points)
    stretches = [points[start : start + length] for start in range(0, len(points), length)]
    return [Point(sum(p.x for p in part) / len(part), sum(p.y for p in part) / len(part)) for part in stretches]
