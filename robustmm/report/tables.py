"""Tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from robustmm.report.summaries import counted_rows

#: More combinations than this are shown as their mean by number of modalities, with the full list in the CSV.
FULL_TABLE = 15


def combination_table(record: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> Table:
    """One row per combination, or per number of modalities where there are many, then mean, worst and drop.

    Args:
        record: Of `robustmm.report.results.protocol_record`.
        before: Of the same run without adapter; adds the change of the main score to each row.
    """
    metrics = shown_metrics(record)
    table = Table(title=record["title"], title_justify="left")
    table.add_column("combination", no_wrap=True)
    for metric in metrics:
        table.add_column(metric, justify="right", no_wrap=True)
    old = None if before is None else _scores(before, metrics)
    if old is not None:
        table.add_column(f"change of {metrics[0]}", justify="right", no_wrap=True)

    def add(name: str, values: Mapping[str, float | None], flag: str = "") -> None:
        change = [] if old is None else [signed(values[metrics[0]], old.get(name))]
        table.add_row(name + flag, *(number(values[metric]) for metric in metrics), *change)

    for row in _shown_rows(record, metrics):
        add(row["combination"], row["metrics"], "  DEGENERATE" if row["degenerate"] else "")
    table.add_section()
    for name, values in record["aggregates"].items():
        add(name, values)
    table.add_section()
    for row in _unimodal_rows(record):
        label = f"{row['combination']} alone ({record['unimodal']['source']})"
        table.add_row(label, *(number(row["metrics"][metric]) for metric in metrics))
    return table


def _shown_rows(record: Mapping[str, Any], metrics: list[str]) -> list[dict[str, Any]]:
    rows = record["rows"]
    return list(rows) if len(rows) <= FULL_TABLE else by_size(counted_rows(record), metrics)


def _scores(record: Mapping[str, Any], metrics: list[str]) -> dict[str, float | None]:
    """The main score of each line of the table."""
    lines = {row["combination"]: row["metrics"][metrics[0]] for row in _shown_rows(record, metrics)}
    return lines | {name: values[metrics[0]] for name, values in record["aggregates"].items()}


def _unimodal_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each modality's own prediction, unless the same numbers already stand among the combinations."""
    shown = record["rows"] if len(record["rows"]) <= FULL_TABLE else []
    known = {row["combination"]: row["metrics"] for row in shown}
    return [row for row in record["unimodal"]["rows"] if row["metrics"] != known.get(row["combination"])]


def by_size(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Mean rows by number of present modalities, few first."""
    sizes: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        sizes.setdefault(row["combination"].count("+") + 1, []).append(row)
    return [_mean_row(size, group, metrics) for size, group in sorted(sizes.items())]


def _mean_row(size: int, group: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> dict[str, Any]:
    values = {
        metric: [row["metrics"][metric] for row in group if row["metrics"][metric] is not None] for metric in metrics
    }
    return {
        "combination": f"{size} present (mean of {len(group)})",
        "metrics": {metric: sum(known) / len(known) if known else None for metric, known in values.items()},
        "degenerate": any(row.get("degenerate") for row in group),
    }


def shown_metrics(record: Mapping[str, Any]) -> list[str]:
    """The main score, then all others; of quantities those that some combination has, as not every method has all."""
    rows, score = record["rows"], record.get("score")
    metrics = sorted(rows[0]["metrics"], key=lambda name: name != score)
    if "targets" not in record:
        return metrics
    return [name for name in metrics if name == score or any(row["metrics"][name] is not None for row in rows)]


def number(value: float | None) -> str:
    """A value as `digits` has it, or a dash where there is no finite one."""
    return "-" if value is None or not math.isfinite(value) else digits(value)


def digits(value: float, sign: str = "") -> str:
    """Four decimals; of errors in large or tiny units six or three digits, so that nothing but 0 reads as 0.

    Args:
        value: Finite.
        sign: ``+`` shows the sign of positive values too.
    """
    size = abs(value)
    if size >= 1000:
        return f"{value:{sign}.6g}"
    return f"{value:{sign}.2e}" if 0 < size < 0.00005 else f"{value:{sign}.4f}"


def signed(value: float | None, before: float | None) -> str:
    """The difference of two values with its sign, or a dash where either has none."""
    if value is None or before is None or not math.isfinite(value - before):
        return "-"
    return digits(value - before, "+")
