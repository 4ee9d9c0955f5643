"""Every other group against the reference: paired differences, intervals, corrected p values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from robustmm.report.comparison.groups import MOST_DRAWN
from robustmm.report.figure import Figure
from robustmm.report.interval_rows import IntervalRow, IntervalWords, interval_figure
from robustmm.report.sections.section import Section


def difference_sections(compared: Mapping[str, Any]) -> Iterator[Section]:
    """One where there is something to compare with the reference."""
    entries = compared["comparisons"]
    if not entries:
        return
    content = {
        "entries": [{**one, "verdict": verdict(one)} for one in entries],
        "figures": [_figure(compared, name) for name in compared["quantities"][:MOST_DRAWN]],
    }
    title = f"Differences from {compared['reference']}"
    yield Section("differences", title, "Differences", "comparison/differences", content)


def verdict(one: Mapping[str, Any]) -> str:
    """What the corrected test allows to say."""
    if not one["significant"]:
        return "not told apart"
    return "better" if one["better"] else "worse"


def _figure(compared: Mapping[str, Any], quantity: str) -> Figure:
    rows = [
        IntervalRow(
            one["group"], one["difference"], low=one["interval"][0], high=one["interval"][1], values=one["differences"]
        )
        for one in compared["comparisons"]
        if one["quantity"] == quantity
    ]
    words = IntervalWords(
        f"{quantity}: difference from {compared['reference']}",
        f"difference of {compared['metric']}",
        "mean and interval",
        "one seed",
    )
    return interval_figure(rows, words, zero=True)
