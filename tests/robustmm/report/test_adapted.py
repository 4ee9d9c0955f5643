"""Results with an adapter beside those without: names of protocols, changes, the table, the page."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from robustmm.report.html import write_report
from robustmm.report.results import adapted_protocol, adapted_records
from robustmm.report.summaries import changes
from robustmm.report.tables import combination_table

NAMES = ("rgb", "depth", "rgb+depth")


def make_record(scores: list[float | None], **facts: Any) -> dict[str, Any]:
    rows = [
        {
            "combination": name,
            "metrics": {"accuracy": score, "auroc": 0.5},
            "samples": 100,
            "excluded": 0,
            "incomplete": 0,
            "degenerate": False,
        }
        for name, score in zip(NAMES, scores, strict=True)
    ]
    known = [score for score in scores if score is not None]
    mean = sum(known) / len(known)
    summary = {"mean": mean, "worst": min(known), "complete": scores[-1], "drop": None}
    return {
        "title": "demo on test",
        "run": "demo",
        "dataset": "two",
        "split": "test",
        "method": "plain",
        "balancer": "none",
        "missing_policy": "zero_feature",
        "seed": 0,
        "adapter": "none",
        "score": "accuracy",
        "directions": {"accuracy": "max", "auroc": "max"},
        "classes": ["no", "yes"],
        "selection": {"part": "validation", "metric": "mean/accuracy", "value": 0.8, "epoch": 1},
        "data": {"validation": "the data set's own", "test_samples": 1000},
        "rows": rows,
        "aggregates": {name: {"accuracy": value, "auroc": 0.5} for name, value in summary.items()},
        "unimodal": {"source": None, "rows": []},
        "degenerate": [],
        "chance": 0.5,
        **facts,
    }


BEFORE = make_record([0.5, 0.75, 0.875])
AFTER = make_record(
    [0.625, 0.75, 0.75], adapter="read", title="demo on test, adapter read", adapter_options={"lr": 0.1}
)


def test_protocol__has_a_name_beside_the_plain_one() -> None:
    assert adapted_protocol("combinations", "read") == "combinations-read"
    protocols = {"combinations-tent": {"adapter": "tent"}, "combinations": {}, "combinations-read": {"adapter": "read"}}
    assert [one["adapter"] for one in adapted_records(protocols)] == ["read", "tent"]


def test_changes__are_of_the_main_score_by_row_and_summary() -> None:
    found = changes(AFTER, BEFORE)
    assert {name: found[name] for name in NAMES} == {"rgb": 0.125, "depth": 0.0, "rgb+depth": -0.125}
    assert found["worst"] == 0.125
    assert found["drop"] is None


@pytest.mark.parametrize("missing", ["before", "after"])
def test_changes__unknown_where_either_has_no_value(missing: str) -> None:
    empty = make_record([None, 0.75, 0.875])
    pair = (AFTER, empty) if missing == "before" else (empty, BEFORE)
    assert changes(*pair)["rgb"] is None


def test_table__has_a_column_with_the_change() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(combination_table(AFTER, before=BEFORE))
    text = console.export_text()
    assert text.splitlines()[0].strip() == "demo on test, adapter read"
    assert "change of accuracy" in text
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    assert [row[:2] + row[3:] for row in cells[:3]] == [
        ["rgb", "0.6250", "+0.1250"],
        ["depth", "0.7500", "+0.0000"],
        ["rgb+depth", "0.7500", "-0.1250"],
    ]
    assert cells[-1][3] == "-"


class Rows(HTMLParser):
    """The cells' values of the rows of one table."""

    def __init__(self, table: str) -> None:
        super().__init__()
        self.table, self.inside, self.row = table, False, ""
        self.values: dict[str, list[str]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.inside = given.get("id") == self.table if tag == "table" else self.inside
        if self.inside and tag == "tr":
            self.row = given.get("data-combination") or given.get("data-aggregate") or ""
        elif self.inside and tag == "td" and self.row:
            self.values.setdefault(self.row, []).append(given.get("data-value") or "")


def page_of(folder: Path, **protocols: Any) -> str:
    (folder / "results.json").write_text(json.dumps({"format": 1, "protocols": protocols}), encoding="utf-8")
    return write_report(folder).read_text(encoding="utf-8")


def test_report__shows_both_tables_and_the_change(tmp_path: Path) -> None:
    page = page_of(tmp_path, **{"combinations": BEFORE, "combinations-read": AFTER})
    plain, adapted = Rows("combination-table"), Rows("adapter-table-read")
    for one in (plain, adapted):
        one.feed(page)
    assert [plain.values[name][0] for name in NAMES] == ["0.5", "0.75", "0.875"]
    assert [adapted.values[name][:2] for name in NAMES] == [["0.125", "0.625"], ["0.0", "0.75"], ["-0.125", "0.75"]]
    assert list(adapted.values)[3:] == ["mean", "worst", "complete", "drop"]
    assert "With adapter read at test time" in page
    assert "lr 0.1" in page


def test_report__without_adapter_has_no_such_section(tmp_path: Path) -> None:
    assert "With adapter" not in page_of(tmp_path, combinations=BEFORE)
