"""Rows with two marks each, joined by a line: with and without, before and after, one model and another."""

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
    Series,
    Tick,
    axis_for,
    left_of_names,
    shortened,
)
from robustmm.report.tables import number

ROW_HEIGHT = 34
#: With more rows than this they stand closer.
MANY_ROWS, CLOSE = 12, 24


class PairRow(NamedTuple):
    """One row.

    Args:
        name: Beside it.
        first: Where the ring stands; None draws none.
        second: Where the dot stands; None draws none.
    """

    name: str
    first: float | None
    second: float | None


class PairWords(NamedTuple):
    """What is said of a figure of pairs.

    Args:
        title: Short.
        text: What it shows, without the numbers, which follow.
        x_label: Of the horizontal axis.
        first: What a ring is.
        second: What a dot is.
    """

    title: str
    text: str
    x_label: str
    first: str
    second: str


def pair_figure(rows: Sequence[PairRow], words: PairWords) -> Figure:
    """Rings and dots of what is known, and lines where both are."""
    known = [value for row in rows for value in (row.first, row.second) if value is not None]
    names = [shortened(row.name) for row in rows]
    left = left_of_names(names)
    x = axis_for(known, left + 8, WIDTH - RIGHT - 8)
    step = CLOSE if len(rows) > MANY_ROWS else ROW_HEIGHT
    places = [TOP + step * (row + 0.5) for row in range(len(rows))]
    first, second, bars = [], [], []
    for row, y in zip(rows, places, strict=True):
        if row.first is not None:
            first.append(Dot(x.at(row.first), y, f"{words.first} {row.name}: {number(row.first)}", "ring"))
        if row.second is not None:
            second.append(Dot(x.at(row.second), y, f"{words.second} {row.name}: {number(row.second)}"))
        if row.first is not None and row.second is not None:
            bars.append((x.at(row.first), x.at(row.second), y))
    said = "; ".join(f"{row.name} from {number(row.first)} to {number(row.second)}" for row in rows)
    return Figure(
        title=words.title,
        text=f"{words.text}: {said}.",
        x_label=words.x_label,
        y_label="",
        x_ticks=x.ticks(),
        y_ticks=tuple(Tick(y, name) for name, y in zip(names, places, strict=True)),
        series=(Series(words.first, 1, dots=tuple(first)), Series(words.second, 0, dots=tuple(second))),
        bars=tuple(bars),
        height=TOP + step * len(rows) + BOTTOM,
        left=left,
    )
