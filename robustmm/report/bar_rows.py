"""Horizontal bars from zero, one per row, with their values at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from robustmm.report.figure import (
    BOTTOM,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Box,
    Dot,
    Figure,
    Series,
    Tick,
    left_of_names,
    shortened,
)
from robustmm.report.rendering import amount

ROW_HEIGHT, BAR_HEIGHT = 26, 15
#: Units that a value at the end of its bar needs.
ROOM = 84
#: Letters of a name that fit beside its row.
NAME_ROOM = 20


class BarRow(NamedTuple):
    """One bar.

    Args:
        name: Beside it.
        value: Its length, at least 0; None draws none.
        text: The value in words.
    """

    name: str
    value: float | None
    text: str


def bar_figure(rows: Sequence[BarRow], title: str, x_label: str) -> Figure:
    """Draw bars on one scale from 0."""
    names = [shortened(row.name, NAME_ROOM) for row in rows]
    left = left_of_names(names)
    largest = max((row.value or 0.0 for row in rows), default=0.0) or 1.0
    x = Axis(0.0, largest, left, WIDTH - RIGHT - ROOM)
    places = [TOP + ROW_HEIGHT * (place + 0.5) for place in range(len(rows))]
    boxes, ends = [], []
    for row, y in zip(rows, places, strict=True):
        if row.value is not None:
            width = round(x.at(row.value) - left, 1)
            boxes.append(Box(left, y - BAR_HEIGHT / 2, width, BAR_HEIGHT, f"{row.name}: {row.text}", "full"))
            ends.append(Dot(round(left + width + 6, 1), y, row.text, "text"))
    return Figure(
        title=title,
        text=f"{title}: " + "; ".join(f"{row.name} {row.text}" for row in rows) + ".",
        x_label=x_label,
        y_label="",
        x_ticks=tuple(Tick(tick.at, amount(float(tick.label))) for tick in x.ticks(3)),
        y_ticks=tuple(Tick(y, name) for name, y in zip(names, places, strict=True)),
        series=(Series("", 0, dots=tuple(ends)),),
        boxes=tuple(boxes),
        height=TOP + ROW_HEIGHT * len(rows) + BOTTOM,
        left=left,
        legend=False,
    )
