"""Tables for the terminal."""

import io

import pytest
from regression_results import ERRORS, regression_record
from rich.console import Console

from robustmm.masks import all_combinations, combination_name
from robustmm.report.tables import combination_table, digits, number, shown_metrics


def table_row(name: str, accuracy: float | None, *, degenerate: bool = False) -> dict:
    return {"combination": name, "metrics": {"accuracy": accuracy}, "degenerate": degenerate}


def text_of(rows: list[dict], unimodal=(), source=None) -> list[list[str]]:
    """The cells of each line of the printed table."""
    aggregates = {"mean": {"accuracy": 0.5}, "worst": {"accuracy": 0.25}, "complete": {"accuracy": 1.0}}
    record = {
        "title": "plain on test",
        "rows": rows,
        "aggregates": aggregates | {"drop": {"accuracy": None}},
        "unimodal": {"source": source, "rows": list(unimodal)},
        "directions": {"accuracy": "max"},
        "chance": 0.2,
    }
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(combination_table(record))
    lines = console.export_text().splitlines()
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]


def test_number__four_decimals_or_a_dash():
    assert [number(value) for value in (0.123456, None, 1.0, float("nan"))] == ["0.1235", "-", "1.0000", "-"]


def test_combination_table__rows_then_aggregates_then_unimodal():
    rows = [table_row("rgb", 0.25, degenerate=True), table_row("rgb+depth", 0.75)]
    cells = text_of(rows, [table_row("rgb", 0.3)], "split")
    assert cells == [
        ["rgb  DEGENERATE", "0.2500"],
        ["rgb+depth", "0.7500"],
        ["mean", "0.5000"],
        ["worst", "0.2500"],
        ["complete", "1.0000"],
        ["drop", "-"],
        ["rgb alone (split)", "0.3000"],
    ]


def test_combination_table__many_combinations_are_shown_by_number_of_modalities():
    names = [combination_name(combo) for combo in all_combinations("abcde")]
    rows = [table_row(name, name.count("+") / 4, degenerate=name == "b") for name in names]
    rows[1]["metrics"]["accuracy"] = None
    assert text_of(rows)[:5] == [
        ["1 present (mean of 5)  DEGENERATE", "0.0400"],  # 0, 0, 0, 0, and chance for the degenerate one
        ["2 present (mean of 10)", "0.2500"],
        ["3 present (mean of 10)", "0.5000"],
        ["4 present (mean of 5)", "0.7500"],
        ["5 present (mean of 1)", "1.0000"],
    ]


@pytest.mark.parametrize(("modalities", "lines"), [("abcd", 15), ("abcde", 5)])
def test_combination_table__fifteen_combinations_still_stand_in_full(modalities, lines):
    rows = [table_row(combination_name(combo), 0.5) for combo in all_combinations(modalities)]
    assert len(text_of(rows)) == lines + 4


def test_combination_table__leaves_out_unimodal_rows_that_repeat_a_combination() -> None:
    same, other = {"accuracy": 0.5}, {"accuracy": 0.75}
    rows = [
        {"combination": name, "metrics": same, "degenerate": False, "samples": 4, "excluded": 0, "incomplete": 0}
        for name in ("rgb", "depth", "rgb+depth")
    ]
    record = {
        "title": "t",
        "rows": rows,
        "aggregates": {},
        "unimodal": {
            "source": "masked",
            "rows": [{"combination": "rgb", "metrics": same}, {"combination": "depth", "metrics": other}],
        },
    }
    labels = list(combination_table(record).columns[0].cells)
    assert labels == ["rgb", "depth", "rgb+depth", "depth alone (masked)"]


def test_combination_table__main_score_stands_first() -> None:
    scores = {"pixel_accuracy": 0.75, "miou": 0.5, "mean_dice": 0.25}
    record = {
        "title": "t",
        "rows": [{"combination": "rgb", "metrics": scores, "degenerate": False}],
        "aggregates": {},
        "unimodal": {"source": None, "rows": []},
        "score": "miou",
    }
    table = combination_table(record)
    assert [column.header for column in table.columns] == ["combination", "miou", "pixel_accuracy", "mean_dice"]
    assert list(table.columns[1].cells) == ["0.5000"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0000"),
        (0.1, "0.1000"),
        (52.19577, "52.1958"),
        (999.99996, "1000.0000"),
        (1234.5678, "1234.57"),
        (152431.25, "152431"),
        (3.2e9, "3.2e+09"),
        (0.00005, "0.0001"),
        (0.0000123, "1.23e-05"),
        (-0.00001, "-1.00e-05"),
        (-5.8539, "-5.8539"),
    ],
)
def test_digits__tell_errors_of_any_size(value: float, text: str) -> None:
    assert digits(value) == text
    assert digits(value, "+") == (text if value < 0 else f"+{text}")


def test_shown_metrics__of_quantities_are_those_with_a_value() -> None:
    assert shown_metrics(regression_record(ERRORS)) == ["mae", "rmse", "correlation"]
    assert shown_metrics(regression_record(ERRORS, nll=4.0)) == ["mae", "rmse", "correlation", "nll"]
