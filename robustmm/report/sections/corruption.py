"""Scores while one modality of every sample is corrupted: by modality, corruption and severity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustmm.report.curves import Plot, Point, curve_figure
from robustmm.report.figure import Figure
from robustmm.report.heat import span_of, tint
from robustmm.report.run_files import Record, RunFiles
from robustmm.report.sections.section import Section


@dataclass(frozen=True)
class HeatCell:
    """One modality under one corruption.

    Args:
        mean: Mean score over severities; None where there is none.
        drop: Clean minus mean, likewise.
        tint: Strength of the cell's colour in percent.
        kind: ``loss``, ``gain``, or ``absent``.
        reason: Why the corruption was not applied.
        degenerate: Severities at which the model gives one answer for everything.
    """

    mean: float | None = None
    drop: float | None = None
    tint: float = 0.0
    kind: str = "absent"
    reason: str = ""
    degenerate: int = 0


def corruption_sections(run: RunFiles) -> Iterator[Section]:
    """One where corruptions were measured."""
    record = run.protocols.get("corruption")
    if record is None:
        return
    names = list(dict.fromkeys(mean["corruption"] for mean in record["means"]))
    columns = _columns(record, run.modalities)
    values = {(row["modality"], row["corruption"], row["severity"]): row for row in record["rows"]}
    span = span_of((mean["drop"][run.score] for mean in record["means"]), run.scales[run.score])
    content = {
        "clean": record["clean"][run.score],
        "columns": columns,
        "heat": {name: [_cell(record, run, modality, name, span) for modality in columns] for name in names},
        "span": span,
        "reasons": _reasons(record),
        "figures": _figures(record, run, names, columns),
        "series": {name: place for place, name in enumerate(columns)},
        "means": record["means"],
        "severities": record["severities"],
        "values": values,
        "seed": record["corruption_seed"],
    }
    yield Section("corruption", "One modality corrupted", "Corruption", "sections/corruption", content)


def _columns(record: Record, modalities: Sequence[str]) -> list[str]:
    """Modalities that were corrupted, or would have been if a corruption fitted."""
    named = {one["modality"] for one in (*record["means"], *record["skipped"])}
    return [name for name in modalities if name in named]


def _cell(record: Record, run: RunFiles, modality: str, corruption: str, span: float) -> HeatCell:
    found = _find(record["means"], modality, corruption)
    if found is None:
        skipped = _find(record["skipped"], modality, corruption)
        return HeatCell(reason="it was not measured" if skipped is None else skipped["reason"])
    drop = found["drop"][run.score]
    rows = [row for row in record["rows"] if row["modality"] == modality and row["corruption"] == corruption]
    harm = None if drop is None else drop if run.rising else -drop
    return HeatCell(
        mean=found["metrics"][run.score],
        drop=drop,
        tint=tint(abs(harm or 0.0), span),
        kind="gain" if harm is not None and harm < 0 else "loss",
        degenerate=sum(bool(row["degenerate"]) for row in rows),
    )


def _find(entries: Sequence[Record], modality: str, corruption: str) -> Record | None:
    return next((one for one in entries if one["modality"] == modality and one["corruption"] == corruption), None)


def _reasons(record: Record) -> dict[str, list[tuple[str, str]]]:
    """Corruption -> (modalities, reason) of each that was left out, one line for modalities with one reason."""
    found: dict[str, dict[str, list[str]]] = {}
    for one in record["skipped"]:
        found.setdefault(one["corruption"], {}).setdefault(one["reason"], []).append(one["modality"])
    return {
        name: [(", ".join(modalities), reason) for reason, modalities in reasons.items()]
        for name, reasons in found.items()
    }


def _figures(record: Record, run: RunFiles, names: Sequence[str], columns: Sequence[str]) -> list[Figure]:
    """One small figure per corruption, a curve per modality, all on one scale, from clean at severity 0."""
    clean = record["clean"][run.score]
    every = [row["metrics"][run.score] for row in record["rows"] if row["metrics"][run.score] is not None]
    shared = [value for value in (*every, clean) if value is not None]
    styles = {name: place for place, name in enumerate(columns)}
    found = []
    for name in names:
        curves = {modality: _curve(record["rows"], run.score, modality, name, clean) for modality in columns}
        plot = Plot(name, "severity", run.score, small=True, y_values=shared, whole=True, styles=styles)
        figure = curve_figure(curves, plot)
        if figure is not None:
            found.append(figure)
    return found


def _curve(
    rows: Sequence[Mapping[str, Any]], score: str, modality: str, corruption: str, clean: float | None
) -> list[Point]:
    """A modality's scores by severity, the clean score in front; nothing where it was not measured."""
    own = [row for row in rows if row["modality"] == modality and row["corruption"] == corruption]
    points = [Point(row["severity"], row["metrics"][score]) for row in own if row["metrics"][score] is not None]
    return [Point(0, clean), *points] if points and clean is not None else points
