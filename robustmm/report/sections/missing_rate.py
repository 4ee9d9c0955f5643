"""Scores while modalities are missing at a rate, in one pattern or another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustmm.report.curves import Plot, Point, curve_figure
from robustmm.report.figure import Figure
from robustmm.report.heat import span_of, tint
from robustmm.report.run_files import Record, RunFiles
from robustmm.report.sections.points import curve_points, mean_over, metric_columns, with_counts
from robustmm.report.sections.section import Section

#: With more modalities than this their curves have no bands, which would hide each other.
MOST_BANDS = 3
PLACE = ("pattern", "modality", "rate")
#: What each pattern means.
PATTERNS = {
    "bernoulli": "each modality of each sample is missing with this probability, independently",
    "shared": "a sample that is hit keeps one modality alone",
    "label": "the rate grows with the label",
    "block": "consecutive samples lose a modality together",
    "per_modality": "one modality is missing with this probability, the others are there",
}


def missing_rate_sections(run: RunFiles) -> Iterator[Section]:
    """One where missing rates were measured."""
    record = run.protocols.get("missing-rate")
    if record is None:
        return
    points = [_with_rates(point, run) for point in with_counts(record["curves"], record["rows"], PLACE)]
    figures = [figure for figure in (_patterns(record, run), _modalities(record, run)) if figure is not None]
    patterns = dict.fromkeys(point["pattern"] for point in points)
    harms = _harms(points, run)
    span = span_of(harms.values(), run.scales[run.score])
    content = {
        "points": points,
        "rates": sorted({point["rate"] for point in points}),
        "grid": _grid(points, run.score, harms, span),
        "span": span,
        "columns": metric_columns(points, run.metrics),
        "figures": figures,
        "patterns": {name: PATTERNS.get(name, "") for name in patterns},
        "single": any(point["modality"] is not None for point in points),
        "masks": record["masks"],
        "draws": sorted({point["draws"] for point in points}),
    }
    yield Section("missing-rate", "Scores by missing rate", "Missing rate", "sections/missing_rate", content)


@dataclass(frozen=True)
class GridCell:
    """One pattern at one rate.

    Args:
        rate: Wanted.
        mean: Of the main score over masks; None where there is none.
        sd: Its deviation; None for a single mask.
        tint: Strength of the cell's colour in percent: what is lost against the smallest rate.
        kind: ``loss`` or ``gain``.
        degenerate: Masks under which the model gives one answer for everything.
    """

    rate: float
    mean: float | None
    sd: float | None
    tint: float
    kind: str
    degenerate: int


def _lines(points: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Pattern, with its modality where it has one -> points."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for point in points:
        name = point["pattern"] if point["modality"] is None else f"only {point['modality']} missing"
        lines.setdefault(name, []).append(point)
    return lines


def _harms(points: Sequence[dict[str, Any]], run: RunFiles) -> dict[tuple[str, float], float]:
    """(line, rate) -> what is lost against the smallest rate of the line."""
    lines = _lines(points)
    firsts = {name: min(own, key=lambda one: one["rate"])["metrics"][run.score]["mean"] for name, own in lines.items()}
    return {
        (name, point["rate"]): _harm(point["metrics"][run.score]["mean"], firsts[name], run.rising)
        for name, own in lines.items()
        for point in own
    }


def _grid(
    points: Sequence[dict[str, Any]], score: str, harms: Mapping[tuple[str, float], float], span: float
) -> dict[str, dict[float, GridCell]]:
    """Line -> rate -> cell."""
    return {
        name: {point["rate"]: _grid_cell(point, score, harms[name, point["rate"]], span) for point in own}
        for name, own in _lines(points).items()
    }


def _harm(mean: float | None, first: float | None, rising: bool) -> float:
    if mean is None or first is None:
        return 0.0
    return first - mean if rising else mean - first


def _grid_cell(point: dict[str, Any], score: str, harm: float, span: float) -> GridCell:
    values = point["metrics"][score]
    kind = "gain" if harm < 0 else "loss"
    return GridCell(point["rate"], values["mean"], values["sd"], tint(abs(harm), span), kind, point["degenerate"])


def _with_rates(point: dict[str, Any], run: RunFiles) -> dict[str, Any]:
    """A point with the realised rates and the share of complete samples, as means over its masks."""
    rows = point["rows"]
    realised = {name: mean_over(rows, "realised", name) for name in ("overall", *run.modalities)}
    return {**point, "realised": realised, "complete_share": mean_over(rows, "complete_share")}


def _patterns(record: Record, run: RunFiles) -> Figure | None:
    """A curve for each pattern in which every modality may go missing."""
    chosen = [point for point in record["curves"] if point["modality"] is None]
    names = dict.fromkeys(point["pattern"] for point in chosen)
    curves = {
        name: curve_points([point for point in chosen if point["pattern"] == name], "rate", run.score) for name in names
    }
    return curve_figure(curves, Plot(f"{run.score} by missing rate", "missing rate", run.score))


def _modalities(record: Record, run: RunFiles) -> Figure | None:
    """A curve for each modality that fails alone."""
    chosen = [point for point in record["curves"] if point["modality"] is not None]
    names = dict.fromkeys(point["modality"] for point in chosen)
    curves = {
        name: curve_points([point for point in chosen if point["modality"] == name], "rate", run.score)
        for name in names
    }
    if len(curves) > MOST_BANDS:
        curves = {name: [Point(x, y) for x, y, _ in points] for name, points in curves.items()}
    plot = Plot(
        f"{run.score} while one modality fails", "rate at which it is missing", run.score, names_beside=len(names) > 1
    )
    return curve_figure(curves, plot)
