"""Reliability diagrams: accuracy against confidence, bin by bin, over a strip that says where predictions lie."""

from __future__ import annotations

from collections.abc import Sequence

from robustmm.report.figure import (
    LEFT,
    RIGHT,
    SMALL_LEFT,
    SMALL_RIGHT,
    SMALL_WIDTH,
    TOP,
    WIDTH,
    Axis,
    Box,
    Dot,
    Figure,
    Line,
    Series,
    Tick,
)
from robustmm.report.tables import number

#: Height of the plot, and of the strip of counts above it with the gap between, in view box units.
PLOT, STRIP, GAP = 232, 34, 10
SMALL_PLOT, SMALL_STRIP = 110, 18
BELOW = 46
Bins = Sequence[Sequence[float | None]]


def reliability_figure(bins: Bins, title: str, *, small: bool = False) -> Figure:
    """Draw one combination.

    Args:
        bins: Count, mean confidence and accuracy of each bin of equal width, from 0 to 1.
        title: Short.
        small: One of many.
    """
    left, right = (SMALL_LEFT, SMALL_WIDTH - SMALL_RIGHT) if small else (LEFT, WIDTH - RIGHT)
    plot, strip = (SMALL_PLOT, SMALL_STRIP) if small else (PLOT, STRIP)
    top = TOP + strip + GAP
    x, y = Axis(0.0, 1.0, left, right), Axis(0.0, 1.0, top + plot, top)
    shares = [0.0, 0.5, 1.0] if small else [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    known = [(place, one) for place, one in enumerate(bins) if one[0]]
    dots = tuple(_dot(one, x, y) for _, one in known)
    return Figure(
        title=title,
        text=f"Accuracy by confidence of {title}: {_said(known)}.",
        x_label="confidence",
        y_label="" if small else "accuracy",
        x_ticks=tuple(Tick(x.at(share), f"{share:g}") for share in shares),
        y_ticks=tuple(Tick(y.at(share), f"{share:g}") for share in shares),
        series=(Series("mean of a bin", 0, dots=dots),),
        boxes=(*_columns(bins, x, y), *_counts(bins, x, TOP + strip, strip)),
        lines=(Line(x.at(0), y.at(0), x.at(1), y.at(1), "diagonal"), *_gaps(known, x, y)),
        height=top + plot + BELOW,
        left=left,
        width=SMALL_WIDTH if small else WIDTH,
        right=right,
        top=top,
        legend=False,
    )


def _said(known: Sequence[tuple[int, Sequence[float | None]]]) -> str:
    return "; ".join(
        f"{count:.0f} with confidence {number(confidence)} and accuracy {number(accuracy)}"
        for _, (count, confidence, accuracy) in known
        if count is not None
    )


def _dot(one: Sequence[float | None], x: Axis, y: Axis) -> Dot:
    count, confidence, accuracy = (value or 0.0 for value in one)
    label = f"{count:.0f}: confidence {number(confidence)}, accuracy {number(accuracy)}"
    return Dot(x.at(confidence), y.at(accuracy), label)


def _columns(bins: Bins, x: Axis, y: Axis) -> list[Box]:
    """Accuracy of each bin as a column."""
    width = (x.end - x.start) / len(bins)
    found = []
    for place, (count, _, accuracy) in enumerate(bins):
        if count and accuracy is not None:
            upper = y.at(accuracy)
            left = round(x.start + place * width + 1, 1)
            found.append(
                Box(left, upper, round(width - 2, 1), round(y.start - upper, 1), f"accuracy {number(accuracy)}")
            )
    return found


def _counts(bins: Bins, x: Axis, bottom: float, height: float) -> list[Box]:
    """How many predictions each bin has, as a strip of columns of its own."""
    width, most = (x.end - x.start) / len(bins), max(one[0] or 0.0 for one in bins)
    found = []
    for place, (count, *_) in enumerate(bins):
        if count:
            own = max(height * count / most, 0.8)
            left = round(x.start + place * width + 1, 1)
            found.append(
                Box(
                    left,
                    round(bottom - own, 1),
                    round(width - 2, 1),
                    round(own, 1),
                    f"{count:.0f} predictions",
                    "count",
                )
            )
    return found


def _gaps(known: Sequence[tuple[int, Sequence[float | None]]], x: Axis, y: Axis) -> list[Line]:
    """From each bin's accuracy to its confidence."""
    found = []
    for _, one in known:
        _, confidence, accuracy = (value or 0.0 for value in one)
        found.append(Line(x.at(confidence), y.at(accuracy), x.at(confidence), y.at(confidence), "gap"))
    return found
