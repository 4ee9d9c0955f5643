"""Which runs were compared, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from robustmm.report.rendering import flat
from robustmm.report.sections.section import Section


def run_sections(compared: Mapping[str, Any]) -> Iterator[Section]:
    """Always one."""
    content = {
        "settings": flat(compared["settings"]),
        "statistics": flat(compared["statistics"]),
        "data": flat(compared["data"]),
        "differences": {group["label"]: flat(group["differences"]) for group in compared["groups"]},
    }
    yield Section("runs", "Runs, settings, statistics", "Runs", "comparison/runs", content)
