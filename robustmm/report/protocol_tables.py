"""A short table for the terminal of each protocol but that of all combinations; the CSV has every row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from robustmm.report.tables import FULL_TABLE, by_size, number

Record = Mapping[str, Any]
Cells = Sequence[str]


def protocol_table(protocol: str, record: Record) -> Table:
    """The table of a protocol.

    Args:
        protocol: Its name.
        record: As in ``results.json``.
    """
    title, header, rows = TABLES[protocol](record)
    table = Table(title=title, title_justify="left")
    table.add_column(header[0], no_wrap=True)
    for name in header[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _missing_rate(record: Record) -> tuple[str, Cells, Iterator[Cells]]:
    score = record["score"]

    def rows() -> Iterator[Cells]:
        for point in record["curves"]:
            name = point["pattern"] if point["modality"] is None else f"{point['pattern']} {point['modality']}"
            values = point["metrics"][score]
            yield name, f"{point['rate']:g}", number(values["mean"]), number(values["sd"]), str(point["draws"])

    return f"{score} by missing rate", ("pattern", "rate", "mean", "sd", "masks"), rows()


def _corruption(record: Record) -> tuple[str, Cells, Iterator[Cells]]:
    score, severities = record["score"], record["severities"]
    values = {(row["modality"], row["corruption"], row["severity"]): row["metrics"][score] for row in record["rows"]}

    def rows() -> Iterator[Cells]:
        for mean in record["means"]:
            place = mean["modality"], mean["corruption"]
            by_severity = [number(values[(*place, severity)]) for severity in severities]
            yield " ".join(place), *by_severity, number(mean["metrics"][score]), number(mean["drop"][score])

    header = ("corruption", *(f"severity {severity}" for severity in severities), "mean", "drop")
    return f"{score} while one modality is corrupted; clean {number(record['clean'][score])}", header, rows()


def _noise(record: Record) -> tuple[str, Cells, Iterator[Cells]]:
    score = record["score"]

    def rows() -> Iterator[Cells]:
        for point in record["curves"]:
            values = point["metrics"][score]
            yield point["noise"], f"{point['strength']:g}", number(values["mean"]), number(values["sd"])

    return f"{score} under noise on all modalities", ("noise", "epsilon", "mean", "sd"), rows()


def _expected(record: Record) -> tuple[str, Cells, Iterator[Cells]]:
    score = record["score"]
    rows = ((row["name"], number(row["metrics"][score])) for row in record["rows"])
    return f"Expected {score}", ("failures", score), rows


def _by_combination(title: str) -> Callable[[Record], tuple[str, Cells, Iterator[Cells]]]:
    def table(record: Record) -> tuple[str, Cells, Iterator[Cells]]:
        metrics = [*record["rows"][0]["metrics"]]
        batches: dict[int | None, list[Mapping[str, Any]]] = {}
        for row in record["rows"]:
            batches.setdefault(row.get("batch_size"), []).append(row)

        def rows() -> Iterator[Cells]:
            for size, group in batches.items():
                for row in group if len(group) <= FULL_TABLE else by_size(group, metrics):
                    name = row["combination"] if len(batches) < 2 else f"{row['combination']} x {size}"
                    yield name, *(number(row["metrics"][metric]) for metric in metrics)

        return title, ("combination", *metrics), rows()

    return table


TABLES: Mapping[str, Callable[[Record], tuple[str, Cells, Iterator[Cells]]]] = {
    "expected": _expected,
    "missing-rate": _missing_rate,
    "corruption": _corruption,
    "noise": _noise,
    "calibration": _by_combination("Calibration and uncertainty"),
    "latency": _by_combination("Time, work and memory of a prediction"),
}
