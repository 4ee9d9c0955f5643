"""How training went: losses, validation scores, and which modality was ahead."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustmm.report.curves import Plot, Point, curve_figure
from robustmm.report.figure import Figure
from robustmm.report.run_files import Record, RunFiles
from robustmm.report.sections.section import Section


@dataclass(frozen=True)
class Progress:
    """One modality's validation scores over training.

    Args:
        modality: Its name.
        first: In the first epoch that was validated; None where there is no score, like the next two.
        selected: In the epoch whose weights were selected.
        last: In the last epoch.
        led: In how many epochs it was ahead of all others.
    """

    modality: str
    first: float | None
    selected: float | None
    last: float | None
    led: int


def training_sections(run: RunFiles) -> Iterator[Section]:
    """Always one."""
    logs = [line for line in run.lines if line["kind"] == "log"]
    drawn = [loss_figure(logs), score_figure(run.epochs, run.score, run.record["selection"])]
    content = {
        "figures": [figure for figure in drawn if figure is not None],
        "messages": [line["text"] for line in run.lines if line["kind"] == "message"],
        "dominance": dominance_figure(run),
        "progress": progress(run),
        "epochs": len(run.epochs),
    }
    yield Section("training", "Training", "Training", "sections/training", content)


def loss_figure(logs: Sequence[Record]) -> Figure | None:
    """Loss terms by step; None where nothing was logged."""
    names = list(dict.fromkeys(name for log in logs for name in log if name.startswith("loss/")))
    names.sort(key=lambda name: name != "loss/total")
    curves = {name.removeprefix("loss/"): _known(logs, "step", name) for name in names}
    if "total" in curves and len(curves) == 2:
        curves.pop("total")  # the same curve as the only term
    return curve_figure(curves, Plot("Loss terms", "optimiser step", "loss", may_log=True, whole=True))


def score_figure(epochs: Sequence[Record], score: str, selection: Mapping[str, Any]) -> Figure | None:
    """Validation scores by epoch, the selected epoch marked; None where there was no validation."""
    names = dict.fromkeys([f"mean/{score}", f"worst/{score}", f"complete/{score}", str(selection["metric"])])
    curves = {name: _known(epochs, "epoch", f"validation/{name}") for name in names}
    plot = Plot("Validation scores", "epoch, counted from 0", score, rule=_rule(selection), whole=True)
    return curve_figure(curves, plot)


def dominance_figure(run: RunFiles) -> Figure | None:
    """Validation score of the model shown one modality alone, by epoch; None for fewer than two modalities."""
    curves = {name: _known(run.epochs, "epoch", _key(run, name)) for name in run.modalities}
    known = {name: points for name, points in curves.items() if points}
    if len(known) < 2:
        return None
    plot = Plot(
        f"Validation {run.score} of each modality alone",
        "epoch, counted from 0",
        run.score,
        rule=_rule(run.record["selection"]),
        names_beside=True,
        whole=True,
    )
    return curve_figure(known, plot)


def progress(run: RunFiles) -> list[Progress]:
    """Each modality's scores over training, those without any left out."""
    epochs, selected = run.epochs, run.record["selection"]["epoch"]
    leaders = [_leader(epoch, run) for epoch in epochs]
    found = []
    for name in run.modalities:
        key = _key(run, name)
        if any(_value(epoch, key) is not None for epoch in epochs):
            chosen = next((_value(epoch, key) for epoch in epochs if epoch["epoch"] == selected), None)
            first, last = _value(epochs[0], key), _value(epochs[-1], key)
            found.append(Progress(name, first, chosen, last, leaders.count(name)))
    return found if len(found) > 1 else []


def _leader(epoch: Record, run: RunFiles) -> str | None:
    """The modality with the best score of its own; None where two share it or none has one."""
    values = {name: _value(epoch, _key(run, name)) for name in run.modalities}
    known = {name: value for name, value in values.items() if value is not None}
    if len(known) < 2:
        return None
    best = max(known.values()) if run.rising else min(known.values())
    leaders = [name for name, value in known.items() if value == best]
    return leaders[0] if len(leaders) == 1 else None


def _key(run: RunFiles, modality: str) -> str:
    return f"validation/{modality}/{run.score}"


def _rule(selection: Mapping[str, Any]) -> tuple[float, str]:
    return float(selection["epoch"]), f"selected: epoch {selection['epoch']}"


def _value(record: Record, name: str) -> float | None:
    """A finite number of a line; None where it is absent or was written as text."""
    value = record.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _known(records: Sequence[Record], key: str, name: str) -> list[Point]:
    """Places and values; values that are absent or not finite are left out."""
    values = [(record[key], _value(record, name)) for record in records]
    return [Point(place, value) for place, value in values if value is not None]
