"""Groups of runs against a reference group: means over seeds, paired tests, everything as JSON values."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robustmm.errors import CheckpointError, RobustmmError, did_you_mean
from robustmm.report import statistics
from robustmm.report.comparison_remarks import comparison_remarks
from robustmm.report.groups import Group, group_runs
from robustmm.report.measures import LAYOUTS, Measures, Record, full_scale, layout_of, main_metric, measure
from robustmm.report.refusals import refusals, settings
from robustmm.report.results import COMBINATIONS
from robustmm.report.runs import FinishedRun, find_runs, read_run, split_keys

FORMAT = 1
#: Which p value is corrected and decides; the other one stands beside it.
TESTS = {"t": "paired t-test", "sign-flip": "exact sign-flip permutation test"}


@dataclass(frozen=True)
class CompareRequest:
    """What is compared, and how.

    Args:
        folders: Run folders, or folders that contain some.
        protocol: Which results.
        metric: Score; None means the main one.
        by: Keys that are what is compared, see `robustmm.report.refusals.PROTECTED`.
        splits: Keys that name the split, beside those called seed and those that a sweep varied.
        reference: Label or configuration name of the group that the others are tested against; None means the first.
        test: A key of `TESTS`.
    """

    folders: Sequence[Path]
    protocol: str = COMBINATIONS
    metric: str | None = None
    by: Sequence[str] = ()
    splits: Sequence[str] = ()
    reference: str | None = None
    test: str = "t"


def compare(request: CompareRequest) -> dict[str, Any]:
    """Compare groups of runs.

    Returns:
        All numbers, as JSON values; what tables and pages are made of.

    Raises:
        RobustmmError: every reason why the runs must not be compared.
    """
    request = replace(request, protocol=_known_protocol(request.protocol))
    runs = _read(request)
    _require_protocol(runs, request.protocol)
    layout = layout_of(request.protocol)
    assert layout is not None  # just seen to
    groups = _reference_first(group_runs(runs, request.by), request.reference)
    reasons = refusals(groups, request.protocol, layout, request.metric, request.by)
    if reasons:
        raise RobustmmError("\n".join(reasons))
    first = groups[0].runs[0].protocols[request.protocol]
    metric = request.metric or main_metric(first)
    direction = first["directions"][metric]
    records = [[run.protocols[request.protocol] for run in group.runs] for group in groups]
    measured = _measure(records, lambda record, without: measure(record, metric, layout, direction, without))
    quantities = _quantities(measured)
    compared = {
        "format": FORMAT,
        "title": f"{request.protocol} on {first['split']}, {metric} of {first['dataset']}",
        "protocol": request.protocol,
        "dataset": first["dataset"],
        "split": first["split"],
        "metric": metric,
        "direction": direction,
        "scale": full_scale(first, metric, _values(measured)),
        "mean_over": layout.over or None,
        "along": layout.along,
        "by": list(request.by),
        "reference": groups[0].label,
        "statistics": _methods(request.test, len(groups[0].runs)),
        "replicates": [run.replicate for run in groups[0].runs],
        "settings": settings(first),
        "data": first["data"],
        "quantities": quantities,
        "groups": [
            _group(group, found, own, quantities) for group, found, own in zip(groups, records, measured, strict=True)
        ],
        "comparisons": _comparisons(groups, measured, quantities, direction, request.test),
    }
    compared["remarks"] = comparison_remarks(compared, groups, measured)
    return compared


def _read(request: CompareRequest) -> list[FinishedRun]:
    splits = [*request.splits, *split_keys(request.folders)]
    runs, problems = [], []
    for path in find_runs(request.folders):
        try:
            runs.append(read_run(path, splits))
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise RobustmmError("\n".join(problems))
    return runs


def _known_protocol(given: str) -> str:
    """The protocol as results name it; ``missing_rate`` is ``missing-rate``."""
    for name in (given, given.replace("_", "-")):
        if layout_of(name) is not None:
            return name
    raise RobustmmError(
        f"--protocol {given}: not one that is compared over seeds{did_you_mean(given, LAYOUTS) or '.'} "
        f"Known: {', '.join(LAYOUTS)}, and {COMBINATIONS}-ADAPTER"
    )


def _require_protocol(runs: Sequence[FinishedRun], protocol: str) -> None:
    """Every run has it."""
    lacking = [
        f"{run.path} has no results of protocol '{protocol}' (it has {', '.join(run.protocols) or 'none'}); run "
        f"`robustmm evaluate {run.path} --protocol {protocol}`"
        for run in runs
        if not run.protocols.get(protocol, {}).get("rows")
    ]
    if lacking:
        raise RobustmmError("\n".join(lacking))


def _reference_first(groups: Sequence[Group], reference: str | None) -> list[Group]:
    """The groups with the reference in front."""
    if reference is None:
        return list(groups)
    chosen = [group for group in groups if group.label == reference] or [g for g in groups if g.name == reference]
    if len(chosen) != 1:
        labels = [group.label for group in groups]
        what = "names several groups" if chosen else "is no group"
        known = ", ".join(labels)
        raise RobustmmError(f"--reference {reference}: {what}{did_you_mean(reference, labels) or '.'} Known: {known}")
    return [chosen[0], *(group for group in groups if group is not chosen[0])]


def _measure(
    records: Sequence[Sequence[Record]], measure_one: Callable[[Record, Collection[str]], Measures]
) -> list[list[Measures]]:
    """Every run; means are over the points that all runs have a value of."""
    first = [[measure_one(record, ()) for record in group] for group in records]
    unknown = {point.name for group in first for own in group for point in own.points if point.value is None}
    return [[measure_one(record, unknown) for record in group] for group in records] if unknown else first


def _quantities(measured: Sequence[Sequence[Measures]]) -> list[str]:
    """Headlines that every run has a value of; the others cannot be averaged over seeds."""
    everyone = [own for group in measured for own in group]
    return [name for name in everyone[0].quantities if all(own.quantities.get(name) is not None for own in everyone)]


def _values(measured: Sequence[Sequence[Measures]]) -> list[float]:
    """Every point of every run, as far as it has a value."""
    points = [point for group in measured for own in group for point in own.points]
    return [point.value for point in points if point.value is not None]


def _methods(test: str, seeds: int) -> dict[str, Any]:
    """Which statistics these are, in words."""
    return {
        "seeds": seeds,
        "confidence": statistics.CONFIDENCE,
        "level": statistics.LEVEL,
        "interval": f"percentile bootstrap over seeds, {statistics.RESAMPLES} resamples, seed "
        f"{statistics.BOOTSTRAP_SEED}",
        "difference_interval": "Student's t over the paired differences",
        "test": TESTS[test],
        "correction": "Holm, over the comparisons of one column",
    }


def _group(
    group: Group, records: Sequence[Record], measured: Sequence[Measures], quantities: Sequence[str]
) -> dict[str, Any]:
    return {
        "label": group.label,
        "name": group.name,
        "differences": dict(group.differences),
        **{key: records[0][key] for key in ("method", "balancer", "missing_policy")},
        "runs": [str(run.path) for run in group.runs],
        "selection": [record["selection"] for record in records],
        "quantities": {name: _summary([_known(own.quantities[name]) for own in measured]) for name in quantities},
        "points": [_point(place, measured) for place in range(len(measured[0].points))],
        "degenerate": [list(own.degenerate) for own in measured],
    }


def _known(value: float | None) -> float:
    assert value is not None, "quantities without a value are left out before"
    return value


def _summary(values: Sequence[float]) -> dict[str, Any]:
    interval = statistics.bootstrap_interval(values)
    return {
        "values": list(values),
        "mean": statistics.mean_of(values),
        "sd": statistics.deviation(values),
        "interval": [interval.low, interval.high],
    }


def _point(place: int, measured: Sequence[Measures]) -> dict[str, Any]:
    """A point over seeds; mean and deviation are of the seeds that have a value."""
    point = measured[0].points[place]
    by_name = [{one.name: one.value for one in own.points} for own in measured]
    values = [own[point.name] for own in by_name]
    known = [value for value in values if value is not None]
    return {
        "name": point.name,
        "series": point.series,
        "at": point.at,
        "values": values,
        "mean": statistics.mean_of(known) if known else None,
        "sd": statistics.deviation(known) if len(known) > 1 else None,
    }


def _comparisons(
    groups: Sequence[Group],
    measured: Sequence[Sequence[Measures]],
    quantities: Sequence[str],
    direction: str,
    test: str,
) -> list[dict[str, Any]]:
    """Every other group against the first, column by column."""
    found = []
    for name in quantities:
        columns = [[_known(own.quantities[name]) for own in group] for group in measured]
        tests = [statistics.paired_test(own, columns[0]) for own in columns[1:]]
        raw = [one.p if test == "t" else one.p_sign_flip for one in tests]
        for group, one, p, corrected in zip(groups[1:], tests, raw, statistics.holm(raw), strict=True):
            better = one.mean > 0 if direction == "max" else one.mean < 0
            found.append(
                {
                    "group": group.label,
                    "reference": groups[0].label,
                    "quantity": name,
                    "differences": list(one.differences),
                    "difference": one.mean,
                    "interval": [one.interval.low, one.interval.high],
                    "p_t": one.p,
                    "p_sign_flip": one.p_sign_flip,
                    "p": p,
                    "p_holm": corrected,
                    "significant": corrected < statistics.LEVEL,
                    "better": bool(better and one.mean),
                }
            )
    return found


def write_comparison(compared: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``comparison.json``, ``.csv``, ``.md`` and ``.tex``, all with the same numbers; returns their paths."""
    from robustmm.report.comparison_tables import as_csv, as_latex, as_markdown

    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "json": json.dumps(compared, indent=2, allow_nan=False) + "\n",
        "csv": as_csv(compared),
        "md": as_markdown(compared),
        "tex": as_latex(compared),
    }
    paths = []
    for kind, text in texts.items():
        path = folder / f"comparison.{kind}"
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
        paths.append(path)
    return paths
