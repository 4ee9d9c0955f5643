"""Colours of cells: how strongly a value tints its cell, so that its number stays readable."""

from __future__ import annotations

from collections.abc import Iterable

#: Share of the colour in the darkest cell, in percent. Text keeps a contrast of 4.5:1 up to here, in light and in dark.
MOST_TINT = 45.0
#: Share of a score's scale that spans the colours at least: where all changes are smaller, as noise is, all stay pale.
LEAST_SPAN = 0.05


def span_of(changes: Iterable[float | None], scale: float) -> float:
    """The change that has the darkest colour: the largest, but no less than `LEAST_SPAN` of the scale.

    Args:
        changes: Of a score, in either direction; None where there is none.
        scale: See `robustmm.report.measures.full_scale`.
    """
    return max([LEAST_SPAN * scale, *(abs(change) for change in changes if change is not None)])


def tint(value: float, largest: float) -> float:
    """Strength of a cell's colour in percent, 0 for 0 and `MOST_TINT` for the largest value."""
    if largest <= 0:
        return 0.0
    return round(MOST_TINT * min(max(value / largest, 0.0), 1.0), 1)
