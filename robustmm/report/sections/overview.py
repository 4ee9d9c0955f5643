"""One line for each protocol: the number to remember, and where the rest stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from robustmm.report.run_files import Record, RunFiles
from robustmm.report.summaries import largest_of

#: Missing rate of the headline, where it was measured.
HALF = 0.5


class Headline(NamedTuple):
    """What one protocol comes down to.

    Args:
        protocol: Its name.
        section: Where its numbers stand on the page.
        words: What the value is.
        value: As in the record; None where it has none.
        metric: Which score.
    """

    protocol: str
    section: str
    words: str
    value: float | None
    metric: str


def measured(run: RunFiles) -> list[Headline]:
    """A headline for each protocol that the run has results of, besides that of all combinations."""
    found = []
    for name, make in HEADLINES.items():
        record = run.protocols.get(name)
        if record is not None and record["rows"]:
            what, value, metric = make(record, run)
            found.append(Headline(name, name, what, value, metric))
    return found


def not_measured(run: RunFiles) -> list[str]:
    """Protocols that would fit the run and that it has no results of."""
    unfit = {"calibration"} if "targets" in run.record else set()
    return [name for name in HEADLINES if name not in run.protocols and name not in {"customised", *unfit}]


Told = tuple[str, float | None, str]


def _missing_rate(record: Record, run: RunFiles) -> Told:
    rates = {point["rate"] for point in record["curves"]}
    nearest = min(rates, key=lambda rate: abs(rate - HALF))
    point = next(point for point in record["curves"] if point["rate"] == nearest)
    pattern = point["pattern"] if point["modality"] is None else f"{point['pattern']} {point['modality']}"
    return (
        f"mean over masks where {nearest:g} of the modalities are missing ({pattern})",
        point["metrics"][run.score]["mean"],
        run.score,
    )


def _corruption(record: Record, run: RunFiles) -> Told:
    return _hardest(record["means"], run, lambda mean: f"{mean['modality']} with {mean['corruption']}")


def _hardest(means: list[Mapping[str, Any]], run: RunFiles, name: Callable[[Mapping[str, Any]], str]) -> Told:
    known = [mean for mean in means if mean["metrics"][run.score] is not None]
    if not known:
        return "no mean over severities has a value", None, run.score
    hardest = min if run.rising else max
    worst = hardest(known, key=lambda mean: mean["metrics"][run.score])
    return f"worst mean over severities: {name(worst)}", worst["metrics"][run.score], run.score


def _noise(record: Record, run: RunFiles) -> Told:
    point = record["curves"][-1]
    return (
        f"{point['noise']} noise of strength {point['strength']:g} on all modalities",
        point["metrics"][run.score]["mean"],
        run.score,
    )


def _expected(record: Record, run: RunFiles) -> Told:
    row = record["rows"][-1]
    return row["name"], row["metrics"][run.score], run.score


def _calibration(record: Record, run: RunFiles) -> Told:
    row = _complete(record)
    return "of the complete combination; less is better", row["metrics"]["ece"], "ece"


def _latency(record: Record, run: RunFiles) -> Told:
    row = _complete(record)
    what = f"of a batch of {row['batch_size']} with all modalities, on {record['measured_on']}"
    return what, row["metrics"]["median_ms"], "median_ms"


def _customised(record: Record, run: RunFiles) -> Told:
    known = [row for row in record["rows"] if row["difference"].get(run.score) is not None]
    if not known:
        return "no combination has a difference", None, run.score
    largest = max(known, key=lambda row: abs(row["difference"][run.score]))
    return (
        f"largest difference between a model of its own and this one: {largest['combination']}",
        largest["difference"][run.score],
        run.score,
    )


def _complete(record: Record) -> Record:
    name = largest_of(record["rows"])
    found: Record = next(row for row in record["rows"] if row["combination"] == name)
    return found


#: In the order of the page.
HEADLINES: Mapping[str, Callable[[Record, RunFiles], Told]] = {
    "customised": _customised,
    "expected": _expected,
    "missing-rate": _missing_rate,
    "corruption": _corruption,
    "noise": _noise,
    "calibration": _calibration,
    "latency": _latency,
}
