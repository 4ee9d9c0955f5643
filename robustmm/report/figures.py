"""Where things stand in the report's figures; the template draws them as SVG, with colours from the style sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from robustmm.report.summaries import Row, Spread, Worth, members
from robustmm.report.tables import number

#: Units of the view box. A figure is about as wide as a phone, so that its letters stay readable there.
WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 16, 46
#: Points of one curve; longer records are averaged in stretches.
MOST_POINTS = 240
#: Losses further apart than this factor stand on a logarithmic axis.
LOG_FROM = 30.0
#: Curves with fewer points than this show them as dots too.
DOTTED_BELOW = 41
ROW_HEIGHT = 34
#: Letters of a modality's name that fit beside a row; the table beside the figure has the whole name.
NAME_LENGTH = 18


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
class Series:
    """A curve, a cloud of dots, or both.

    Args:
        name: For the legend.
        style: Number of its colour and dash pattern in the style sheet.
        path: Points of the curve as SVG wants them; empty draws none.
        dots: Values drawn as marks.
    """

    name: str
    style: int
    path: str = ""
    dots: tuple[Dot, ...] = ()


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
        bars: Lines (x1, x2, y) between two marks of a row.
        height: Of the view box.
        left: Where the plot begins.
    """

    title: str
    text: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    series: tuple[Series, ...]
    rule: Tick | None = None
    bars: tuple[tuple[float, float, float], ...] = ()
    height: int = HEIGHT
    left: int = LEFT
    width: int = field(default=WIDTH)
    right: int = field(default=WIDTH - RIGHT)
    top: int = field(default=TOP)

    @property
    def bottom(self) -> int:
        """Where the plot ends."""
        return self.height - BOTTOM


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

    def ticks(self) -> tuple[Tick, ...]:
        """About five round numbers."""
        values = _decades(self.low, self.high) if self.log else _round_steps(self.low, self.high)
        return tuple(Tick(self.at(value), f"{value:.6g}") for value in values)


def axis_for(values: Sequence[float], start: float, end: float, *, log: bool = False) -> Axis:
    """An axis a little wider than its values; one value, or none, gets room around it."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if log:
        return Axis(low / 1.15, high * 1.15, start, end, log=True)
    room = (high - low) * 0.06 or max(abs(high), 1.0) * 0.05
    return Axis(low - room, high + room, start, end)


def _round_steps(low: float, high: float) -> list[float]:
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda size: abs(size - rough))
    return [round(n * step, 12) for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if len(powers) > 4 else (1, 3)
    return [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]


def size_figure(rows: Sequence[Row], spreads: Sequence[Spread], metric: str) -> Figure:
    """Score by number of present modalities: one dot per combination, a line through the means."""
    known = [row["metrics"][metric] for row in rows if row["metrics"][metric] is not None]
    y = axis_for(known, HEIGHT - BOTTOM, TOP)
    x = Axis(spreads[0].size - 0.5, spreads[-1].size + 0.5, LEFT, WIDTH - RIGHT)
    dots = [dot for spread in spreads for dot in _cloud(rows, spread.size, metric, x, y)]
    crosses = tuple(dot for dot in dots if dot.mark == "cross")
    plain = Series("one combination", 1, dots=tuple(dot for dot in dots if dot.mark != "cross"))
    degenerate = (Series("degenerate", 7, dots=crosses),) if crosses else ()
    means = [(x.at(spread.size), y.at(spread.mean)) for spread in spreads if spread.mean is not None]
    said = "; ".join(f"{spread.size} present: mean {number(spread.mean)}" for spread in spreads)
    return Figure(
        title=f"{metric} by number of present modalities",
        text=f"Every combination's {metric} against how many modalities are present. {said}.",
        x_label="present modalities",
        y_label=metric,
        x_ticks=tuple(Tick(x.at(spread.size), str(spread.size)) for spread in spreads),
        y_ticks=y.ticks(),
        series=(plain, *degenerate, Series("mean", 0, path=_path(means))),
    )


def _cloud(rows: Sequence[Row], size: int, metric: str, x: Axis, y: Axis) -> list[Dot]:
    """Dots of one size, spread sideways in a fixed way so that equal scores stay apart."""
    group = [row for row in rows if len(members(row)) == size and row["metrics"][metric] is not None]
    group.sort(key=lambda row: row["metrics"][metric])
    golden = (math.sqrt(5) - 1) / 2  # multiples of it fill an interval evenly
    dots = []
    for place, row in enumerate(group):
        aside = ((place + 1) * golden % 1 - 0.5) * 0.5 if len(group) > 1 else 0.0
        score = row["metrics"][metric]
        label = f"{row['combination']}: {number(score)}" + (" (degenerate)" if row["degenerate"] else "")
        dots.append(Dot(x.at(size + aside), y.at(score), label, "cross" if row["degenerate"] else "soft"))
    return dots


def worth_figure(worths: Sequence[Worth], metric: str) -> Figure:
    """Per modality, the mean score without it and of the same combinations with it, joined by a line."""
    known = [value for worth in worths for value in (worth.present, worth.absent) if value is not None]
    names = [_shortened(worth.modality) for worth in worths]
    left = 24 + 8 * max(len(name) for name in names)
    x = axis_for(known, left + 8, WIDTH - RIGHT - 8)
    places = [TOP + ROW_HEIGHT * (row + 0.5) for row in range(len(worths))]
    absent, present, bars = [], [], []
    for worth, y in zip(worths, places, strict=True):
        if worth.absent is not None:
            absent.append(Dot(x.at(worth.absent), y, f"without {worth.modality}: {number(worth.absent)}", "ring"))
        if worth.present is not None:
            present.append(Dot(x.at(worth.present), y, f"with {worth.modality}: {number(worth.present)}"))
        if worth.absent is not None and worth.present is not None:
            bars.append((x.at(worth.absent), x.at(worth.present), y))
    said = "; ".join(f"{worth.modality} from {number(worth.absent)} to {number(worth.present)}" for worth in worths)
    return Figure(
        title=f"Mean {metric} without and with each modality",
        text=f"Mean {metric} of the combinations without each modality, and after it has joined them: {said}.",
        x_label=f"mean {metric}",
        y_label="",
        x_ticks=x.ticks(),
        y_ticks=tuple(Tick(y, name) for name, y in zip(names, places, strict=True)),
        series=(Series("without", 1, dots=tuple(absent)), Series("with", 0, dots=tuple(present))),
        bars=tuple(bars),
        height=TOP + ROW_HEIGHT * len(worths) + BOTTOM,
        left=left,
    )


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"


def loss_figure(logs: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Loss terms by step; None where nothing was logged."""
    names = list(dict.fromkeys(name for log in logs for name in log if name.startswith("loss/")))
    names.sort(key=lambda name: name != "loss/total")
    curves = {name.removeprefix("loss/"): _known(logs, "step", name) for name in names}
    if "total" in curves and len(curves) == 2:
        curves.pop("total")  # the same curve as the only term
    return _curves("Loss terms", "optimiser step", "loss", curves, may_log=True)


def score_figure(epochs: Sequence[Mapping[str, Any]], score: str, selection: Mapping[str, Any]) -> Figure | None:
    """Validation scores by epoch, the selected epoch marked; None where there was no validation."""
    names = dict.fromkeys([f"mean/{score}", f"worst/{score}", f"complete/{score}", str(selection["metric"])])
    curves = {name: _known(epochs, "epoch", f"validation/{name}") for name in names}
    rule = (float(selection["epoch"]), f"selected: epoch {selection['epoch']}")
    return _curves("Validation scores", "epoch, counted from 0", score, curves, rule=rule)


def _known(records: Sequence[Mapping[str, Any]], key: str, name: str) -> list[tuple[float, float]]:
    """(step, value) pairs; values that are absent or not finite are left out."""
    return [
        (record[key], record[name])
        for record in records
        if isinstance(record.get(name), int | float) and math.isfinite(record[name])
    ]


def _curves(
    title: str,
    x_label: str,
    y_label: str,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    *,
    may_log: bool = False,
    rule: tuple[float, str] | None = None,
) -> Figure | None:
    thinned = {name: _thin(points) for name, points in curves.items() if points}
    if not thinned:
        return None
    values = [value for points in thinned.values() for _, value in points]
    log = may_log and min(values) > 0 and max(values) / min(values) > LOG_FROM
    x = axis_for([step for points in thinned.values() for step, _ in points], LEFT, WIDTH - RIGHT)
    y = axis_for(values, HEIGHT - BOTTOM, TOP, log=log)
    series = tuple(_curve(name, style, points, x, y) for style, (name, points) in enumerate(thinned.items()))
    said = "; ".join(f"{name} from {points[0][1]:.4g} to {points[-1][1]:.4g}" for name, points in thinned.items())
    return Figure(
        title=title,
        text=f"{title} by {x_label}: {said}." + (f" Line at {rule[1]}." if rule else ""),
        x_label=x_label,
        y_label=f"{y_label} (log scale)" if log else y_label,
        x_ticks=tuple(tick for tick in x.ticks() if float(tick.label).is_integer()),
        y_ticks=y.ticks(),
        series=series,
        rule=None if rule is None else Tick(x.at(rule[0]), rule[1]),
    )


def _curve(name: str, style: int, points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> Series:
    places = [(x.at(step), y.at(value)) for step, value in points]
    dots: tuple[Dot, ...] = ()
    if len(points) < DOTTED_BELOW:
        dots = tuple(
            Dot(*place, f"{name}, {step:g}: {number(value)}")
            for place, (step, value) in zip(places, points, strict=True)
        )
    return Series(name, style, path=_path(places), dots=dots)


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MOST_POINTS` points: means of equally long stretches."""
    length = math.ceil(len(points) / MOST_POINTS)
    stretches = [points[start : start + length] for start in range(0, len(points), length)]
    return [(sum(p[0] for p in part) / len(part), sum(p[1] for p in part) / len(part)) for part in stretches]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)
