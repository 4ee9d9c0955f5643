"""``comparison.html``: groups of runs over seeds on one page that needs no network and no other file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from robustmm.report.comparison.differences import difference_sections
from robustmm.report.comparison.groups import group_sections
from robustmm.report.comparison.points import point_sections
from robustmm.report.comparison.runs import run_sections
from robustmm.report.rendering import page_parts, render
from robustmm.report.sections.section import Section, rendered

#: Every section of the page, in order; each takes the comparison as in ``comparison.json``.
SECTIONS: tuple[Callable[[Mapping[str, Any]], Iterator[Section]], ...] = (
    group_sections,
    difference_sections,
    point_sections,
    run_sections,
)


def write_comparison_page(compared: Mapping[str, Any], folder: Path) -> Path:
    """Write ``comparison.html``.

    Args:
        compared: Of `robustmm.report.compare.compare`, or ``comparison.json`` read again.
        folder: Where to; it is made if need be.

    Returns:
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "comparison.html"
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(comparison_page(compared), encoding="utf-8")
    os.replace(temporary, path)
    return path


def comparison_page(compared: Mapping[str, Any]) -> str:
    """The whole page."""
    shared = {"compared": compared, "metric": compared["metric"], "groups": compared["groups"]}
    sections = [section for make in SECTIONS for section in make(compared)]
    content = {"sections": [rendered(section, shared) for section in sections]}
    return render("comparison.html.jinja", {**shared, **page_parts(), **content})
