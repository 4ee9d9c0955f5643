"""``report.html``: one run on one page that needs no network and no other file."""

from __future__ import annotations

import os
from pathlib import Path

from robustmm.report.rendering import page_parts, render
from robustmm.report.run_files import RunFiles, read_run_files
from robustmm.report.sections.listing import SECTIONS
from robustmm.report.sections.section import Section, rendered


def write_report(folder: Path) -> Path:
    """Write ``report.html`` of a run.

    Read are ``results.json``, which must be there, and ``metrics.jsonl``, ``config.yaml`` and ``env.json``, without
    which their sections say so.

    Args:
        folder: Of the run.

    Returns:
        The page.

    Raises:
        CheckpointError: there are no results, or not those of all combinations.
    """
    path = folder / "report.html"
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(page_of(read_run_files(folder)), encoding="utf-8")
    os.replace(temporary, path)
    return path


def page_of(run: RunFiles) -> str:
    """The whole page."""
    shared = {
        "record": run.record,
        "score": run.score,
        "modalities": run.modalities,
        "metrics": run.metrics,
        "scales": run.scales,
    }
    sections: list[Section] = [section for make in SECTIONS for section in make(run)]
    content = {"sections": [rendered(section, shared) for section in sections], "folder": run.folder.name}
    return render("report.html.jinja", {**shared, **page_parts(), **content})
