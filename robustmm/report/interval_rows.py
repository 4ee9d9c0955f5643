"""Rows with a mean, its interval and the single values that it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from robustmm.report.figure import (
    BOTTOM,
    RIGHT,
    TOP,
    WIDTH,
    Dot,
    Figure,
    Line,
    Series,
    Tick,
    axis_for,
    left_of_names,
    shortened,
)
from robustmm.report.tables import number

ROW_HEIGHT = 38
#: How far the interval stands above the middle of its row, and the values below it.
ABOVE, BELOW = 5, 8
#: Letters of a group's label that fit beside its row.
LABEL_LENGTH = 20


class IntervalRow(NamedTuple):
    """One row.

    Args:
        name: Beside it.
        mean: Where the dot stands.
        low: Where the interval begins.
        high: Where it ends.
        values: Of the single seeds.
    """

    name: str
    mean: float
    low: float
    high: float
    values: Sequence[float]


class IntervalWords(NamedTuple):
    """What is said of a figure of intervals.

    Args:
        title: Short.
        x_label: Of the horizontal axis.
        mean: What a dot is.
        value: What a small dot is.
    """

    title: str
    x_label: str
    mean: str
    value: str


def interval_figure(rows: Sequence[IntervalRow], words: IntervalWords, *, zero: bool = False) -> Figure:
    """Draw rows on one scale.

    Args:
        rows: At least one.
        words: Title and the like.
        zero: Differences: the axis has room for 0, and a line stands there.
    """
    known = [value for row in rows for value in (row.low, row.high, row.mean, *row.values)]
    names = [shortened(row.name, LABEL_LENGTH) for row in rows]
    left = left_of_names(names)
    x = axis_for([*known, 0.0] if zero else known, left + 8, WIDTH - RIGHT - 8)
    places = [TOP + ROW_HEIGHT * (place + 0.5) for place in range(len(rows))]
    drawn = list(zip(rows, places, strict=True))
    means = tuple(Dot(x.at(row.mean), y - ABOVE, _label(row)) for row, y in drawn)
    values = tuple(
        Dot(x.at(value), y + BELOW, f"{row.name}, seed {place}: {number(value)}", "soft")
        for row, y in drawn
        for place, value in enumerate(row.values)
    )
    return Figure(
        title=words.title,
        text=f"{words.title}: " + "; ".join(_label(row) for row in rows) + ".",
        x_label=words.x_label,
        y_label="",
        x_ticks=x.ticks(),
        y_ticks=tuple(Tick(y, name) for name, y in zip(names, places, strict=True)),
        series=(Series(words.mean, 0, dots=means), Series(words.value, 1, dots=values)),
        rule=Tick(x.at(0.0), "no difference") if zero else None,
        lines=tuple(Line(x.at(row.low), y - ABOVE, x.at(row.high), y - ABOVE, "whisker") for row, y in drawn),
        height=TOP + ROW_HEIGHT * len(rows) + BOTTOM,
        left=left,
    )


def _label(row: IntervalRow) -> str:
    return f"{row.name} {number(row.mean)} [{number(row.low)}, {number(row.high)}]"
