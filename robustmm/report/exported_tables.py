"""One run's results as tables for papers and pages: Markdown, CSV and LaTeX, a file per protocol and form."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustmm.report.markup import PlainTable, to_csv, to_latex, to_markdown
from robustmm.report.measures import main_metric
from robustmm.report.results import read_results
from robustmm.report.tables import number

#: Keys of a row that are no name of it.
NOT_NAMES = ("metrics", "samples", "excluded", "incomplete", "degenerate", "per_class")
#: Scores of a row that has no others: those of the latency.
NUMBERS = ("median_ms", "p95_ms", "repeats", "flops", "peak_memory_bytes")
#: In the name of a degenerate row, which the legend explains.
DEGENERATE = "†"


def write_tables(run: Path, folder: Path) -> list[Path]:
    """Write ``<protocol>.md``, ``.csv`` and ``.tex`` of every protocol of a run.

    Args:
        run: A run's folder with ``results.json``.
        folder: Where to; made where it is not there.

    Returns:
        The files.

    Raises:
        CheckpointError: there are no results, or they are damaged.
    """
    protocols = read_results(run / "results.json")["protocols"]
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for protocol, record in protocols.items():
        for kind, text in protocol_texts(record).items():
            path = folder / f"{protocol}.{kind}"
            temporary = path.with_name(f".{path.name}.tmp")
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
            paths.append(path)
    return paths


def protocol_texts(record: Mapping[str, Any]) -> dict[str, str]:
    """A record as ``md``, ``csv`` and ``tex``; the CSV has every digit and marks degenerate rows in a column."""
    lines = _lines(record)
    table = _plain_table(record, lines)
    return {
        "md": "\n".join([to_markdown(table), *(f"{note}\n" for note in _notes(record))]),
        "csv": _csv(lines),
        "tex": "".join(f"% {note}\n" for note in _notes(record)) + to_latex(table),
    }


def _lines(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table: names, scores by column, whether degenerate; summaries follow, marked as such."""
    found = [_line(row) for row in record["rows"]]
    names = list(found[0]["names"])
    for name, values in record.get("aggregates", {}).items():
        own = {key: name if key == names[0] else None for key in names}
        found.append({"names": own, "scores": dict(values), "degenerate": False, "summary": True})
    first = main_metric(record) if "metrics" in record["rows"][0] else None
    for line in found:
        line["scores"] = dict(sorted(line["scores"].items(), key=lambda item: item[0] != first))
    return found


def _line(row: Mapping[str, Any]) -> dict[str, Any]:
    names = {key: value for key, value in row.items() if key not in NOT_NAMES and not isinstance(value, Mapping | list)}
    scores = row.get("metrics") or {key: row[key] for key in NUMBERS if key in row}
    names = {key: value for key, value in names.items() if key not in scores}
    return {"names": names, "scores": scores, "degenerate": bool(row.get("degenerate")), "summary": False}


def _plain_table(record: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> PlainTable:
    names = [key for key in lines[0]["names"] if any(line["names"].get(key) is not None for line in lines)]
    scores = list(lines[0]["scores"])
    rows = tuple(
        (
            *(_name(line, key, first=place == 0) for place, key in enumerate(names)),
            *(number(line["scores"].get(score)) for score in scores),
        )
        for line in lines
    )
    first_summary = next((place for place, line in enumerate(lines) if line["summary"]), None)
    rules = frozenset() if first_summary is None else frozenset({first_summary})
    return PlainTable(str(record.get("title", "")), (*names, *scores), rows, rules=rules)


def _name(line: Mapping[str, Any], key: str, *, first: bool) -> str:
    value = line["names"].get(key)
    text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return f"{text} {DEGENERATE}" if first and line["degenerate"] else text


def _notes(record: Mapping[str, Any]) -> list[str]:
    selection = record.get("selection", {})
    notes = [
        f"{record.get('dataset')}, part {record.get('split')}; method {record.get('method')}, balancer "
        f"{record.get('balancer')}, missing policy {record.get('missing_policy')}, seed {record.get('seed')}; weights "
        f"selected by {selection.get('metric')} on {selection.get('part')}."
    ]
    if any(row.get("degenerate") for row in record["rows"]):
        notes.append(f"{DEGENERATE} degenerate: one answer for everything; counts as chance in mean and worst.")
    return notes


def _csv(lines: Sequence[Mapping[str, Any]]) -> str:
    names, scores = list(lines[0]["names"]), list(lines[0]["scores"])
    rows = [
        [
            *(line["names"].get(key) for key in names),
            *(line["scores"].get(score) for score in scores),
            line["degenerate"],
        ]
        for line in lines
    ]
    return to_csv([*names, *scores, "degenerate"], rows)
