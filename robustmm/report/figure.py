"""What a figure is made of; the template draws it as SVG, with colours from the style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

#: Units of the view box. A figure is about as wide as a phone, so that its letters stay readable there.
WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 20, 46
#: Of one small figure among many.
SMALL_WIDTH, SMALL_HEIGHT = 250, 190
SMALL_LEFT, SMALL_RIGHT = 46, 10
#: Units of a letter at its size on a phone, of wide and of narrow ones, in the widest of the usual fonts.
LETTER, WIDE, NARROW = 9.0, 13.6, 5.5
WIDE_LETTERS, NARROW_LETTERS = frozenset("mwMW+@%…"), frozenset("ijltfrI.,:;'|()[] -")
#: Units of what stands left of ticks: the axis' name, or else a margin.
NAMED, BARE = 26, 8
#: Letters of a name that fit beside a row; the table beside the figure has the whole name.
NAME_LENGTH = 16
#: Colours of the style sheet; further series repeat them.
STYLES = 8


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis.

    Args:
        at: In view box units.
        label: Text.
    """

    at: float
    label: str


@dataclass(frozen=True)
class Dot:
    """One value.

    Args:
        x: In view box units.
        y: In view box units.
        label: What it is, shown on hovering.
        mark: ``dot``, ``soft`` (one of many), ``cross`` (degenerate) or ``ring`` (hollow).
    """

    x: float
    y: float
    label: str
    mark: str = "dot"


@dataclass(frozen=True)
class Box:
    """A rectangle.

    Args:
        x: Left side, in view box units.
        y: Upper side.
        width: In view box units.
        height: Likewise.
        label: What it is, shown on hovering.
        kind: Class of the style sheet.
    """

    x: float
    y: float
    width: float
    height: float
    label: str
    kind: str = "column"


@dataclass(frozen=True)
class Line:
    """A straight line.

    Args:
        x1: Start, in view box units.
        y1: Likewise.
        x2: End.
        y2: Likewise.
        kind: Class of the style sheet.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    kind: str


@dataclass(frozen=True)
class Series:
    """A curve, a cloud of dots, or both.

    Args:
        name: For the legend.
        style: Number of its colour and dash pattern in the style sheet.
        path: Points of the curve as SVG wants them; empty draws none.
        dots: Values drawn as marks.
        band: Outline of the deviation around the curve; empty draws none.
        end: Where the name stands beside the curve's last point; None leaves it to the legend.
    """

    name: str
    style: int
    path: str = ""
    dots: tuple[Dot, ...] = ()
    band: str = ""
    end: Dot | None = None


@dataclass(frozen=True)
class Figure:
    """One chart.

    Args:
        title: Short.
        text: What it shows, in a sentence, for people who do not see it.
        x_label: Of the horizontal axis.
        y_label: Of the vertical axis.
        x_ticks: Places on the horizontal axis.
        y_ticks: Places on the vertical axis.
        series: What is drawn.
        rule: A vertical line with a label; None draws none.
        level: A horizontal line with a label; None draws none.
        bars: Lines (x1, x2, y) between two marks of a row.
        boxes: Rectangles behind the series.
        lines: Straight lines over the boxes.
        height: Of the view box.
        left: Where the plot begins.
        legend: Whether the names of the series stand above the plot.
    """

    title: str
    text: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    series: tuple[Series, ...]
    rule: Tick | None = None
    level: Tick | None = None
    bars: tuple[tuple[float, float, float], ...] = ()
    boxes: tuple[Box, ...] = ()
    lines: tuple[Line, ...] = ()
    height: int = HEIGHT
    left: int = LEFT
    width: int = field(default=WIDTH)
    right: int = field(default=WIDTH - RIGHT)
    top: int = field(default=TOP)
    legend: bool = True

    @property
    def bottom(self) -> int:
        """Where the plot ends."""
        return self.height - BOTTOM

    @property
    def small(self) -> bool:
        """Whether it is one of many."""
        return self.width < WIDTH


@dataclass(frozen=True)
class Axis:
    """From values to view box units.

    Args:
        low: Value at ``start``.
        high: Value at ``end``.
        start: In view box units.
        end: In view box units.
        log: Logarithmic; all values are above 0.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value stands."""
        low, high, here = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (here - low) / (high - low) * (self.end - self.start), 1)

    def holds(self, value: float) -> bool:
        """Whether a value lies within."""
        return self.low <= value <= self.high

    def ticks(self, about: int = 5) -> tuple[Tick, ...]:
        """Round numbers."""
        values = _decades(self.low, self.high) if self.log else _round_steps(self.low, self.high, about)
        return tuple(Tick(self.at(value), f"{value:.6g}") for value in values)


def axis_for(values: Sequence[float], start: float, end: float, *, log: bool = False) -> Axis:
    """An axis a little wider than its values; one value, or none, gets room around it."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if log:
        return Axis(low / 1.15, high * 1.15, start, end, log=True)
    room = (high - low) * 0.06 or max(abs(high), 1.0) * 0.05
    return Axis(low - room, high + room, start, end)


def _round_steps(low: float, high: float, about: int) -> list[float]:
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda size: abs(size - rough))
    return [round(n * step, 12) for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if len(powers) > 4 else (1, 3)
    return [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]


def left_of(ticks: Sequence[Tick], *, named: bool = True) -> int:
    """Where a plot begins so that the ticks of its vertical axis, and the axis' name, have room."""
    longest = max((width_of(tick.label) for tick in ticks), default=0)
    wanted = (NAMED if named else BARE) + 8 + round(longest)
    return max(LEFT if named else 0, wanted)


def left_of_names(names: Sequence[str]) -> int:
    """Where a plot begins whose rows have names."""
    return 14 + round(max(map(width_of, names)))


def width_of(text: str) -> float:
    """Units that a text needs."""
    return sum(WIDE if letter in WIDE_LETTERS else NARROW if letter in NARROW_LETTERS else LETTER for letter in text)


def shortened(name: str, length: int = NAME_LENGTH) -> str:
    """A name that fits, with a sign where it is cut."""
    return name if len(name) <= length else name[: length - 1] + "…"


def path_through(points: Sequence[tuple[float, float]]) -> str:
    """Points as SVG wants them."""
    return " ".join(f"{x:g},{y:g}" for x, y in points)
