"""Every group's means over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from robustmm.report.figure import Figure
from robustmm.report.interval_rows import IntervalRow, IntervalWords, interval_figure
from robustmm.report.sections.section import Section

#: Further columns are in the table alone.
MOST_DRAWN = 6


def group_sections(compared: Mapping[str, Any]) -> Iterator[Section]:
    """Always one."""
    names = compared["quantities"]
    content = {
        "quantities": names,
        "remarks": compared["remarks"],
        "scales": {name: _scale(compared, name) for name in names},
        "figures": [_figure(compared, name) for name in names[:MOST_DRAWN]],
    }
    yield Section("groups", "Groups over seeds", "Groups", "comparison/groups", content)


def _scale(compared: Mapping[str, Any], quantity: str) -> float:
    """What a full bar stands for."""
    largest = max(group["quantities"][quantity]["mean"] for group in compared["groups"])
    return max(float(largest), 1.0) if compared["direction"] == "max" else float(largest) or 1.0


def _figure(compared: Mapping[str, Any], quantity: str) -> Figure:
    rows = []
    for group in compared["groups"]:
        own = group["quantities"][quantity]
        low, high = own["interval"]
        rows.append(IntervalRow(group["label"], own["mean"], low, high, own["values"]))
    metric = compared["metric"]
    return interval_figure(rows, IntervalWords(f"{quantity}: {metric}", metric, "mean and interval", "one seed"))
