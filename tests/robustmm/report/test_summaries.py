from __future__ import annotations

from typing import Any

import pytest
from regression_results import ERRORS, regression_record

from robustmm.report.summaries import (
    chances_of,
    class_scores,
    counted_rows,
    modalities_of,
    name_worst,
    spread_by_size,
    worst_of,
    worth_of_modalities,
)


def row(combination: str, score: float | None, *, degenerate: bool = False) -> dict[str, Any]:
    return {
        "combination": combination,
        "metrics": {"f1": score},
        "degenerate": degenerate,
        "excluded": 0,
        "incomplete": 0,
    }


def record(*rows: dict[str, Any], own: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {"rows": list(rows), "unimodal": {"source": "split", "rows": list(own)}, "degenerate": []}


def test_modalities_of__follow_the_largest_combination() -> None:
    assert modalities_of([row("c", 0), row("a+b", 0), row("b", 0)]) == ("a", "b", "c")


def test_spread_by_size__leaves_unknown_scores_out() -> None:
    few, many = spread_by_size([row("a", 0.2), row("b", None), row("a+b", None, degenerate=True)], "f1")
    assert (few.size, few.count, few.low, few.mean, few.high, few.degenerate) == (1, 2, 0.2, 0.2, 0.2, 0)
    assert (many.size, many.count, many.low, many.mean, many.high, many.degenerate) == (2, 1, None, None, None, 1)


def test_worth__compares_the_same_combinations_without_and_with() -> None:
    # c joins a (0.6 -> 0.7), b (0.4 -> 0.5) and a+b (0.8 -> 0.9); alone it is weak, which must not count against it
    rows = [
        row("a", 0.6),
        row("b", 0.4),
        row("c", 0.1),
        row("a+b", 0.8),
        row("a+c", 0.7),
        row("b+c", 0.5),
        row("a+b+c", 0.9),
    ]
    worth = worth_of_modalities(record(*rows, own=(row("c", 0.3, degenerate=True),)), "f1")[2]
    assert worth.modality == "c"
    assert worth.absent == pytest.approx(0.6)
    assert worth.present == pytest.approx(0.7)
    assert worth.gain == pytest.approx(0.1)
    assert (worth.alone, worth.own) == (0.1, 0.3)
    assert (worth.alone_degenerate, worth.own_degenerate) == (False, True)


def test_worth__is_unknown_without_a_pair() -> None:
    a, b = worth_of_modalities(record(row("a+b", 0.9), row("a", 0.5)), "f1")
    assert (a.absent, a.present, a.gain, a.alone) == (None, None, None, 0.5)
    assert (b.absent, b.present, b.alone, b.own) == (0.5, 0.9, None, None)


def test_name_worst__knows_a_degenerate_combination_that_counts_as_chance() -> None:
    found = record(row("a", 0.3, degenerate=True), row("a+b", 0.9))
    found |= {"degenerate": ["a"], "aggregates": {"worst": {"f1": 0.1}}}
    assert name_worst(found, "f1") == "a degenerate combination, counted as chance"
    found["aggregates"] = {"worst": {"f1": 0.9}}
    assert name_worst(found, "f1") == "a+b"


def with_classes(combination: str, score: float, *iou: float | None) -> dict[str, Any]:
    return row(combination, score) | {"per_class": {"iou": list(iou)}}


def segmentation(*rows: dict[str, Any], direction: str = "max") -> dict[str, Any]:
    classes = {"classes": ["floor", "wall"], "score": "f1", "directions": {"f1": direction}, "chance": 0.5}
    return record(*rows) | classes


def test_class_scores__complete_worst_and_mean() -> None:
    rows = (with_classes("a", 0.5, 0.25, None), with_classes("b", 0.25, 0.5, 0.0), with_classes("a+b", 0.75, 0.75, 0.5))
    scores = class_scores(segmentation(*rows))
    assert scores is not None
    assert scores.columns == ("complete", "worst (b)", "mean of 3")
    assert scores.rows == ({"iou": (0.75, 0.5, 0.5)}, {"iou": (0.5, 0.0, 0.25)})


def test_class_scores__worst_is_the_largest_error() -> None:
    rows = (with_classes("a", 0.5, 0.25, 0.5), with_classes("a+b", 0.75, 0.75, 0.5))
    scores = class_scores(segmentation(*rows, direction="min"))
    assert scores is not None
    assert scores.columns == ("complete", "worst (a+b)", "mean of 2")


def test_class_scores__one_combination_stands_alone() -> None:
    scores = class_scores(segmentation(with_classes("a", 0.5, 0.25, None)))
    assert scores is not None
    assert scores.columns == ("a",)
    assert scores.rows == ({"iou": (0.25,)}, {"iou": (None,)})


def test_class_scores__classification_has_none() -> None:
    assert class_scores(segmentation(row("a", 0.5))) is None


def test_counted_rows__a_constant_counts_as_the_mean_of_the_targets() -> None:
    record = regression_record(ERRORS, degenerate="rgb")
    assert [row["metrics"]["mae"] for row in counted_rows(record)] == [60.0, 52.0, 1234567.8]
    assert [row["metrics"]["correlation"] for row in counted_rows(record)] == [0.0, 0.5, 0.5]
    assert worst_of(record) == "rgb+depth"


def test_chances__of_results_that_name_one_number_are_those_of_classes() -> None:
    directions = {"accuracy": "max", "ece": "min"}
    assert chances_of({"directions": directions, "chance": 0.1}) == {"accuracy": 0.1, "ece": 0.5}
