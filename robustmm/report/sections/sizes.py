"""Scores by number of present modalities, where there are many combinations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from robustmm.report.figure import Figure
from robustmm.report.run_files import RunFiles
from robustmm.report.sections.section import Section
from robustmm.report.size_cloud import CloudWords, Placed, size_cloud
from robustmm.report.summaries import Row, Spread, counted_rows, members, spread_by_size
from robustmm.report.tables import FULL_TABLE


def size_sections(run: RunFiles) -> Iterator[Section]:
    """One where the full table is long."""
    rows = run.record["rows"]
    if len(rows) > FULL_TABLE:
        spreads = spread_by_size(counted_rows(run.record), run.score)
        content = {"spreads": spreads, "figure": size_figure(rows, spreads, run.score)}
        yield Section("sizes", "When modalities go missing", "By number present", "sections/sizes", content)


def size_figure(rows: Sequence[Row], spreads: Sequence[Spread], metric: str) -> Figure:
    """Score by number of present modalities: one dot per combination, a line through the means."""
    placed = [
        Placed(row["combination"], len(members(row)), row["metrics"][metric], bool(row["degenerate"])) for row in rows
    ]
    words = CloudWords(
        f"{metric} by number of present modalities",
        f"Every combination's {metric} against how many modalities are present",
        metric,
    )
    return size_cloud(placed, [(spread.size, spread.mean) for spread in spreads], words)
