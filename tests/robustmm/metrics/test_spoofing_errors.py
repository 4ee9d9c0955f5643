"""APCER, BPCER and ACER."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from robustmm.errors import ShapeError
from robustmm.metrics.classification import accuracy
from robustmm.metrics.spoofing import spoofing_errors

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "metrics.json").read_text())["spoofing"]
ATTACK = [GOLDEN["attack_right"], GOLDEN["attack_wrong"], 0]
LIVE = [GOLDEN["live_wrong"], GOLDEN["live_right"], 0]


def test_spoofing_errors__match_the_released_log() -> None:
    confusion = torch.tensor([ATTACK, LIVE])
    errors = spoofing_errors(confusion, live=1)
    assert errors.apcer == pytest.approx(GOLDEN["apcer"], abs=1e-7)
    assert errors.bpcer == pytest.approx(GOLDEN["bpcer"], abs=1e-7)
    assert errors.acer == pytest.approx(GOLDEN["acer"], abs=1e-7)
    assert accuracy(confusion) == pytest.approx(GOLDEN["accuracy"], abs=1e-7)


def test_spoofing_errors__swap_with_the_live_class_and_keep_acer() -> None:
    confusion = torch.tensor([ATTACK, LIVE])
    one, other = spoofing_errors(confusion, live=1), spoofing_errors(confusion, live=0)
    assert (one.apcer, one.bpcer) == (other.bpcer, other.apcer)
    assert one.acer == other.acer


@pytest.mark.parametrize(("column", "expected"), [(0, (0.0, 1.0, 0.5)), (1, (1.0, 0.0, 0.5))])
def test_spoofing_errors__score_a_collapsed_model_at_one_half(
    column: int, expected: tuple[float, float, float]
) -> None:
    confusion = torch.zeros(2, 3, dtype=torch.int64)
    confusion[:, column] = torch.tensor([30, 10])
    assert spoofing_errors(confusion, live=1) == expected


def test_spoofing_errors__count_a_prediction_that_is_no_class_as_an_error_of_its_row() -> None:
    assert spoofing_errors(torch.tensor([[3, 0, 1], [0, 1, 1]]), live=1) == (0.25, 0.5, 0.375)


def test_spoofing_errors__are_none_and_not_perfect_without_one_of_the_classes() -> None:
    assert spoofing_errors(torch.tensor([[0, 0, 0], [1, 3, 0]]), live=1) == (None, 0.25, None)
    assert spoofing_errors(torch.tensor([[3, 1, 0], [0, 0, 0]]), live=1) == (0.25, None, None)


def test_spoofing_errors__refuse_more_than_two_classes_or_an_unknown_live_class() -> None:
    with pytest.raises(ShapeError, match=r"need two classes, a \(2, 3\) confusion matrix; got \(3, 4\)"):
        spoofing_errors(torch.zeros(3, 4), live=0)
    with pytest.raises(ShapeError, match=r"live is class 2; it must be 0 or 1"):
        spoofing_errors(torch.zeros(2, 3), live=2)
