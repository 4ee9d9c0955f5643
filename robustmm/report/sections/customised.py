"""The one model for every combination against a model of its own for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from robustmm.report.figure import Figure
from robustmm.report.pair_rows import PairRow, PairWords, pair_figure
from robustmm.report.run_files import Record, RunFiles
from robustmm.report.sections.section import Section

#: More combinations than this stand in the table alone.
MOST_ROWS = 32


def customised_sections(run: RunFiles) -> Iterator[Section]:
    """One where customised models were trained."""
    record = run.protocols.get("customised")
    if record is None or not record["rows"]:
        return
    rows = record["rows"]
    metrics = sorted(rows[0]["difference"], key=lambda name: name != run.score)
    content = {
        "rows": rows,
        "columns": metrics,
        "means": record["means"],
        "recipe": record["customised"],
        "figure": customised_figure(rows, metrics[0]) if len(rows) <= MOST_ROWS else None,
    }
    yield Section("customised", "One model, or one for each combination", "Customised", "sections/customised", content)


def customised_figure(rows: Sequence[Record], metric: str) -> Figure:
    """Per combination, the score of the unified model and of the customised one."""
    words = PairWords(
        title=f"{metric} of the unified and of customised models",
        text=f"{metric} of the unified model on each combination, and of a model trained for it alone",
        x_label=metric,
        first="unified",
        second="customised",
    )
    pairs = [PairRow(row["combination"], row["unified"].get(metric), row["customised"].get(metric)) for row in rows]
    return pair_figure(pairs, words)
