"""Every mean of a report agrees with the headline where combinations are degenerate."""

from __future__ import annotations

from typing import Any

import pytest

from robustmm.report.summaries import counted_rows, spread_by_size, worth_of_modalities


def record(direction: str, chance: float, **scores: tuple[float | None, bool]) -> dict[str, Any]:
    rows = [
        {"combination": name.replace("_", "+"), "metrics": {"score": value}, "degenerate": degenerate}
        for name, (value, degenerate) in scores.items()
    ]
    facts = {"directions": {"score": direction}, "chance": chance}
    return {"rows": rows, "unimodal": {"source": None, "rows": []}, **facts}


def test_spread__counts_degenerate_combinations_as_the_mean_over_all_does() -> None:
    """One class has 70 % of the samples: a constant prediction measures 0.7 and counts 0.5."""
    found = record("max", 0.5, a=(0.7, True), b=(0.9, False), a_b=(0.8, False))
    one, two = spread_by_size(counted_rows(found), "score")
    assert (one.low, one.mean, one.high, one.degenerate) == (0.5, pytest.approx(0.7), 0.9, 1)
    assert two.mean == 0.8


def test_spread__counts_a_degenerate_combination_without_a_value() -> None:
    found = record("min", 0.5, a=(None, True), b=(0.1, False))
    (one,) = spread_by_size(counted_rows(found), "score")
    assert (one.low, one.high) == (0.1, 0.5)


def test_worth__does_not_credit_a_constant_prediction() -> None:
    found = record("max", 0.5, a=(0.7, True), b=(0.9, False), a_b=(0.8, False))
    a, b = worth_of_modalities(found, "score")
    assert (b.absent, b.present) == (0.5, 0.8)
    assert (a.alone, a.alone_degenerate) == (0.7, True)
