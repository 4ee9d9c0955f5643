"""Colours of cells: how strongly a value tints its cell, so that its number stays readable."""

from __future__ import annotations

#: Share of the colour in the darkest cell, in percent. Text keeps a contrast of 4.5:1 up to here, in light and in dark.
MOST_TINT = 45.0


def tint(value: float, largest: float) -> float:
    """Strength of a cell's colour in percent, 0 for 0 and `MOST_TINT` for the largest value."""
    if largest <= 0:
        return 0.0
    return round(MOST_TINT * min(max(value / largest, 0.0), 1.0), 1)
