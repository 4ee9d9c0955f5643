"""What to know before a comparison is quoted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from robustmm.report.groups import Group
from robustmm.report.measures import Measures
from robustmm.report.refusals import PROTECTED
from robustmm.report.runs import under
from robustmm.report.summaries import Remark

#: With fewer seeds a percentile bootstrap interval is clearly narrower than it claims (docs/comparing.md has figures).
ENOUGH_SEEDS = 10
#: Of the environment: what may change scores.
WATCHED = ("commit", "python", "gpus")
SHOWN = 6


def comparison_remarks(
    compared: Mapping[str, Any], groups: Sequence[Group], measured: Sequence[Sequence[Measures]]
) -> list[dict[str, str]]:
    """Warnings first, as JSON values of `Remark`."""
    found = [*_degenerate(groups, measured), *_left_out(measured, compared["quantities"])]
    found += [*_lifted(groups), *_statistics(compared), *_hidden_differences(groups), *_environments(groups)]
    return [asdict(one) for one in sorted(found, key=lambda remark: remark.kind == "note")]


def _degenerate(groups: Sequence[Group], measured: Sequence[Sequence[Measures]]) -> Iterator[Remark]:
    for group, own in zip(groups, measured, strict=True):
        count = sum(len(one.degenerate) for one in own)
        if count:
            names = dict.fromkeys(name for one in own for name in one.degenerate)
            yield Remark(
                "warning",
                f"{group.label}: {count} of {sum(len(one.points) for one in own)} scores are degenerate "
                f"({_some(list(names))}): one answer for everything. They count as chance in means.",
            )


def _left_out(measured: Sequence[Sequence[Measures]], kept: Sequence[str]) -> Iterator[Remark]:
    left = [name for name in measured[0][0].quantities if name not in kept]
    if left:
        yield Remark("warning", f"Not compared, since some run has no value of it: {', '.join(left)}.")
    runs = [own for group in measured for own in group]
    unknown = dict.fromkeys(point.name for own in runs for point in own.points if point.value is None)
    if unknown:
        yield Remark("note", f"Some run has no value at {_some(list(unknown))}; means over points leave these out.")


def _lifted(groups: Sequence[Group]) -> Iterator[Remark]:
    keys = dict.fromkeys(key for group in groups for key in group.differences if under(key, PROTECTED))
    if keys:
        yield Remark(
            "warning", f"By request the groups differ in {_some(list(keys))}; scores differ for that reason too."
        )


def _statistics(compared: Mapping[str, Any]) -> Iterator[Remark]:
    words, seeds = compared["statistics"], compared["statistics"]["seeds"]
    yield Remark(
        "note",
        f"{seeds} seeds. Intervals of means: {words['interval']}; of differences: {words['difference_interval']}. "
        f"p: {words['test']}, two-sided, corrected by {words['correction']}.",
    )
    if seeds < ENOUGH_SEEDS:
        yield Remark(
            "note",
            f"With {seeds} seeds the bootstrap interval is narrower than {words['confidence']:.0%} says, and the "
            f"sign-flip p cannot be below {2 / 2**seeds:.3g}.",
        )


def _hidden_differences(groups: Sequence[Group]) -> Iterator[Remark]:
    """Keys that differ and stand in no label, options of components that differ as a whole left out."""
    keys = dict.fromkeys(key for group in groups for key in group.differences)
    chosen = {key.removesuffix(".name") for key in keys if key.endswith(".name")}
    hidden = [key for key in keys if not key.endswith(".name") and not under(key, list(chosen))]
    hidden += [key for key in keys if key.endswith(".name") and not any(_told(key, group) for group in groups)]
    shown = [key for key in hidden if not any(f"{key.rpartition('.')[2]}=" in group.label for group in groups)]
    if shown:
        yield Remark("note", f"The groups also differ in {_some(shown)}; comparison.json has the values.")


def _told(key: str, group: Group) -> bool:
    return str(group.differences.get(key)) in group.label


def _environments(groups: Sequence[Group]) -> Iterator[Remark]:
    everyone = [run.environment for group in groups for run in group.runs if run.environment]
    different = [name for name in WATCHED if len({str(own.get(name)) for own in everyone}) > 1]
    versions = {name for own in everyone for name in own.get("versions", {})}
    different += [
        f"version of {name}"
        for name in sorted(versions)
        if len({str(own.get("versions", {}).get(name)) for own in everyone}) > 1
    ]
    if different:
        yield Remark("note", f"The runs were made in different environments: {', '.join(different)}.")


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
