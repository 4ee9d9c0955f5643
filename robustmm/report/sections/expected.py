"""Scores to expect where modalities fail at random."""

from __future__ import annotations

from collections.abc import Iterator

from robustmm.report.run_files import RunFiles
from robustmm.report.sections.section import Section


def expected_sections(run: RunFiles) -> Iterator[Section]:
    """One where expectations were computed."""
    record = run.protocols.get("expected")
    if record is not None:
        columns = [metric for metric in run.metrics if metric in record["rows"][0]["metrics"]]
        yield Section(
            "expected",
            "What to expect in use",
            "Expected",
            "sections/expected",
            {"rows": record["rows"], "columns": columns},
        )
