"""Time, work and memory of a prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from robustmm.report.bar_rows import BarRow, bar_figure
from robustmm.report.figure import Figure
from robustmm.report.rendering import amount
from robustmm.report.run_files import Record, RunFiles
from robustmm.report.sections.section import Section
from robustmm.report.size_cloud import CloudWords, Placed, size_cloud
from robustmm.report.summaries import mean, members
from robustmm.report.tables import FULL_TABLE, number


def latency_sections(run: RunFiles) -> Iterator[Section]:
    """One where latency was measured."""
    record = run.protocols.get("latency")
    if record is None:
        return
    rows = record["rows"]
    sizes = list(dict.fromkeys(row["batch_size"] for row in rows))
    drawn = [row for row in rows if row["batch_size"] == sizes[0]]
    largest = {name: max((row["metrics"][name] or 0.0) for row in rows) or 1.0 for name in rows[0]["metrics"]}
    content = {
        "rows": rows,
        "sizes": sizes,
        "largest": largest,
        "measured_on": record["measured_on"],
        "threads": record["threads"],
        "parameters": record["parameters"],
        "repeats": rows[0]["repeats"],
        "figures": _figures(drawn, sizes),
    }
    yield Section("latency", "Time, work and memory of a prediction", "Latency", "sections/latency", content)


def _figures(rows: Sequence[Record], sizes: Sequence[int]) -> list[Figure]:
    suffix = "" if len(sizes) == 1 else f", batches of {sizes[0]}"
    if len(rows) > FULL_TABLE:
        return [
            _cloud(rows, "median_ms", f"median time{suffix}", "milliseconds"),
            _cloud(rows, "flops", f"operations{suffix}", "FLOPs"),
        ]
    times = [
        BarRow(row["combination"], row["metrics"]["median_ms"], f"{number(row['metrics']['median_ms'])} ms")
        for row in rows
    ]
    work = [BarRow(row["combination"], row["metrics"]["flops"], amount(row["metrics"]["flops"])) for row in rows]
    return [
        bar_figure(times, f"median time{suffix}", "milliseconds"),
        bar_figure(work, f"floating-point operations{suffix}", "FLOPs"),
    ]


def _cloud(rows: Sequence[Record], metric: str, title: str, label: str) -> Figure:
    placed = [Placed(row["combination"], len(members(row)), row["metrics"][metric]) for row in rows]
    by_size = sorted({one.size for one in placed})
    means = [(size, mean(one.value for one in placed if one.size == size)) for size in by_size]
    words = CloudWords(f"{title} by number of modalities", f"{title} of every combination", label)
    return size_cloud(placed, means, words)
