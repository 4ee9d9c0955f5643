"""The table of all combinations."""

from __future__ import annotations

from collections.abc import Iterator

from robustmm.report.run_files import RunFiles
from robustmm.report.sections.section import Section
from robustmm.report.tables import FULL_TABLE


def few_combination_sections(run: RunFiles) -> Iterator[Section]:
    """The table in front of everything else, where it is short."""
    if len(run.record["rows"]) <= FULL_TABLE:
        yield _section(run)


def combination_sections(run: RunFiles) -> Iterator[Section]:
    """The table after its summaries, where it is long."""
    if len(run.record["rows"]) > FULL_TABLE:
        yield _section(run)


def _section(run: RunFiles) -> Section:
    return Section(
        "combinations", "All combinations", "Combinations", "sections/combinations", {"rows": run.record["rows"]}
    )
