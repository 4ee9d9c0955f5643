"""How far a combination's predictions drift from those of the complete input."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Literal

import pytest
import torch

from robustmm.errors import ShapeError
from robustmm.losses.histogram_divergence import histogram_divergence

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "losses.json").read_text())["histogram_divergence"]
COMPLETE = torch.tensor(GOLDEN["complete"])


@pytest.mark.parametrize("smoothing", ["softmax", "none"])
def test_histogram_divergence__matches_the_worked_values(smoothing: Literal["softmax", "none"]) -> None:
    for combination, expected in zip(GOLDEN["combinations"], GOLDEN[smoothing], strict=True):
        value = histogram_divergence(torch.tensor(combination), COMPLETE, smoothing=smoothing)
        assert value.item() == pytest.approx(expected, rel=1e-5)


def test_histogram_divergence__has_a_ceiling_with_softmax() -> None:
    value = histogram_divergence(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    assert value.item() == pytest.approx(GOLDEN["largest_of_two_classes"], abs=1e-4)


def test_histogram_divergence__takes_counts() -> None:
    counts = histogram_divergence(torch.tensor([34, 16]), torch.tensor([350, 150]))
    assert counts.item() == pytest.approx(histogram_divergence(torch.tensor([0.68, 0.32]), COMPLETE).item(), abs=1e-6)


def test_histogram_divergence__takes_a_class_that_the_combination_never_predicts() -> None:
    value = histogram_divergence(torch.tensor([1.0, 0.0]), COMPLETE, smoothing="none")
    assert value.item() == pytest.approx(-math.log(0.7), abs=1e-6)


def test_histogram_divergence__is_infinite_for_a_class_only_the_combination_predicts() -> None:
    assert histogram_divergence(COMPLETE, torch.tensor([1.0, 0.0]), smoothing="none").item() == math.inf


@pytest.mark.parametrize("smoothing", ["softmax", "none"])
def test_histogram_divergence__of_equal_or_empty_histograms_is_zero(smoothing: Literal["softmax", "none"]) -> None:
    assert histogram_divergence(COMPLETE, COMPLETE, smoothing=smoothing).item() == pytest.approx(0, abs=1e-7)
    assert histogram_divergence(torch.zeros(2), torch.zeros(2), smoothing=smoothing).item() == 0


def test_histogram_divergence__refuses_unequal_lengths() -> None:
    with pytest.raises(ShapeError, match=r"the histograms are \(2,\) and \(3,\); both must be \(C,\)"):
        histogram_divergence(torch.ones(2), torch.ones(3))
