"""The headline numbers, what they rest on, and what was measured besides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from robustmm.report.remarks import remarks
from robustmm.report.rendering import headline, words
from robustmm.report.results import COMBINATIONS
from robustmm.report.run_files import RunFiles
from robustmm.report.sections.overview import measured, not_measured
from robustmm.report.sections.section import Section
from robustmm.report.summaries import name_worst


def summary_sections(run: RunFiles) -> Iterator[Section]:
    """Always one."""
    record = run.record
    content = {
        "cards": _cards(record),
        "remarks": remarks(run),
        "used_for_choice": record["selection"]["part"] == record["split"],
        "measured": measured(run),
        "not_measured": not_measured(run),
        "folder": run.folder.name,
        "others": any(name != COMBINATIONS for name in run.protocols),
    }
    title = f"{headline(words(run.score))} on the {record['split']} part"
    yield Section("summary", title, "Summary", "sections/summary", content)


def _cards(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The four headline numbers."""
    score, rows = record["score"], record["rows"]
    better = "more" if record["directions"][score] == "max" else "less"
    complete = max((row["combination"] for row in rows), key=lambda name: name.count("+"))
    count = complete.count("+") + 1
    notes = {
        "mean": f"over {len(rows)} combinations; {better} is better",
        "worst": name_worst(record, score),
        "complete": f"all {count} modalities" if count > 1 else complete,
        "drop": "complete minus mean",
    }
    return [
        {"name": name, "value": record["aggregates"][name][score], "note": note, "id": f"card-{name}"}
        for name, note in notes.items()
    ]
