"""One dot per combination against how many modalities are present, with a line through the means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from robustmm.report.figure import (
    BOTTOM,
    HEIGHT,
    RIGHT,
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
)
from robustmm.report.tables import number


class Placed(NamedTuple):
    """One combination.

    Args:
        combination: Its name.
        size: Present modalities.
        value: What is drawn; None draws nothing.
        degenerate: Drawn as a cross.
    """

    combination: str
    size: int
    value: float | None
    degenerate: bool = False


class CloudWords(NamedTuple):
    """What is said of a cloud.

    Args:
        title: Short.
        text: What it shows, without the means, which follow.
        y_label: Of the vertical axis.
    """

    title: str
    text: str
    y_label: str


def size_cloud(placed: Sequence[Placed], means: Sequence[tuple[int, float | None]], words: CloudWords) -> Figure:
    """Draw combinations by size.

    Args:
        placed: Every combination.
        means: Size -> mean of its combinations, few first.
        words: Title and the like.
    """
    y = axis_for([one.value for one in placed if one.value is not None], HEIGHT - BOTTOM, TOP)
    y_ticks = y.ticks()
    left = left_of(y_ticks)
    x = Axis(means[0][0] - 0.5, means[-1][0] + 0.5, left, WIDTH - RIGHT)
    dots = [dot for size, _ in means for dot in _cloud(placed, size, x, y)]
    crosses = tuple(dot for dot in dots if dot.mark == "cross")
    plain = Series("one combination", 1, dots=tuple(dot for dot in dots if dot.mark != "cross"))
    degenerate = (Series("degenerate", 7, dots=crosses),) if crosses else ()
    points = [(x.at(size), y.at(mean)) for size, mean in means if mean is not None]
    said = "; ".join(f"{size} present: mean {number(mean)}" for size, mean in means)
    return Figure(
        title=words.title,
        text=f"{words.text}. {said}.",
        x_label="present modalities",
        y_label=words.y_label,
        x_ticks=tuple(Tick(x.at(size), str(size)) for size, _ in means),
        y_ticks=y_ticks,
        series=(plain, *degenerate, Series("mean", 0, path=path_through(points))),
        left=left,
    )


def _cloud(placed: Sequence[Placed], size: int, x: Axis, y: Axis) -> list[Dot]:
    """Dots of one size, spread sideways in a fixed way so that equal scores stay apart."""
    group = sorted((one.value, one) for one in placed if one.size == size and one.value is not None)
    golden = (math.sqrt(5) - 1) / 2  # multiples of it fill an interval evenly
    dots = []
    for place, (value, one) in enumerate(group):
        aside = ((place + 1) * golden % 1 - 0.5) * 0.5 if len(group) > 1 else 0.0
        label = f"{one.combination}: {number(value)}" + (" (degenerate)" if one.degenerate else "")
        dots.append(Dot(x.at(size + aside), y.at(value), label, "cross" if one.degenerate else "soft"))
    return dots
