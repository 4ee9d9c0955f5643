"""Calibration error, Brier score and negative log-likelihood."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from robustmm.errors import ShapeError
from robustmm.metrics.calibration import (
    brier_score,
    calibration_bins,
    equal_mass_bins,
    expected_calibration_error,
    maximum_calibration_error,
    negative_log_likelihood,
)

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "metrics.json").read_text())["calibration"]
PROBABILITIES = torch.tensor(GOLDEN["probabilities"], dtype=torch.float64)
TARGET = torch.tensor(GOLDEN["target"])


def random_rows(rows: int = 300, classes: int = 4) -> tuple[Tensor, Tensor]:
    """Logits (R, C) in float64 and labels (R,)."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, classes, (rows,), generator=generator)


def test_calibration__matches_the_hand_worked_bins_and_errors() -> None:
    bins = calibration_bins(PROBABILITIES, TARGET, num_bins=2)
    torch.testing.assert_close(bins, torch.tensor(GOLDEN["bins_of_two"], dtype=torch.float64))
    assert expected_calibration_error(bins) == pytest.approx(GOLDEN["ece"])
    assert maximum_calibration_error(bins) == pytest.approx(GOLDEN["mce"])


def test_calibration__agrees_with_torchmetrics() -> None:
    logits, target = random_rows()
    probabilities = logits.softmax(dim=1)
    bins = calibration_bins(probabilities, target)
    for norm, error in (("l1", expected_calibration_error(bins)), ("max", maximum_calibration_error(bins))):
        expected = multiclass_calibration_error(probabilities, target, num_classes=4, n_bins=15, norm=norm)  # type: ignore[arg-type]
        assert error == pytest.approx(expected.item(), abs=1e-6)


def test_calibration_bins__of_parts_add_up_to_the_whole() -> None:
    logits, target = random_rows()
    probabilities = logits.softmax(dim=1)
    parts = calibration_bins(probabilities[:100], target[:100]) + calibration_bins(probabilities[100:], target[100:])
    torch.testing.assert_close(parts, calibration_bins(probabilities, target), rtol=1e-12, atol=1e-12)


def test_calibration_bins__close_on_the_right() -> None:
    probabilities = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    assert calibration_bins(probabilities, torch.tensor([0, 0]), num_bins=4)[:, 0].tolist() == [0, 1, 0, 1]


def test_equal_mass_bins__hold_equal_shares_of_the_sorted_rows() -> None:
    logits, target = random_rows(rows=90)
    probabilities = logits.softmax(dim=1)
    bins = equal_mass_bins(probabilities, target)
    confidence, predicted = probabilities.max(dim=1)
    order = confidence.argsort().numpy()
    gaps = [
        abs(confidence.numpy()[part].mean() - (predicted == target).numpy()[part].mean()) * len(part) / 90
        for part in np.array_split(order, 15)
    ]
    assert bins[:, 0].tolist() == [6] * 15
    assert expected_calibration_error(bins) == pytest.approx(sum(gaps))


def test_calibration__takes_a_row_that_is_not_finite_as_confident_and_wrong() -> None:
    probabilities = torch.tensor([[float("nan"), 0.5], [1.0, 0.0]])
    bins = calibration_bins(probabilities, torch.tensor([0, 0]), num_bins=2)
    assert bins.tolist() == [[0, 0, 0], [2, 2, 1]]
    assert brier_score(probabilities, torch.tensor([0, 0])).tolist() == [2, 0]
    assert negative_log_likelihood(probabilities, torch.tensor([0, 0]))[0] == math.inf


def test_calibration_error__without_rows_is_none() -> None:
    for bins_of in (calibration_bins, equal_mass_bins):
        bins = bins_of(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
        assert expected_calibration_error(bins) is None
        assert maximum_calibration_error(bins) is None


def test_brier_score__matches_the_hand_worked_values() -> None:
    assert brier_score(PROBABILITIES, TARGET).tolist() == pytest.approx(GOLDEN["brier"])


def test_brier_score_and_likelihood__agree_with_scikit_learn() -> None:
    logits, target = random_rows()
    probabilities = logits.softmax(dim=1)
    expected = log_loss(target, probabilities.numpy(), labels=range(4))
    assert negative_log_likelihood(logits, target).mean().item() == pytest.approx(expected)
    expected = brier_score_loss(target, probabilities.numpy(), labels=range(4), scale_by_half=False)
    assert brier_score(probabilities, target).mean().item() == pytest.approx(expected)


def test_negative_log_likelihood__stays_finite_where_the_probability_underflows() -> None:
    value = negative_log_likelihood(torch.tensor([[2000.0, 0.0]]), torch.tensor([1]))
    assert value.item() == pytest.approx(2000.0)


def test_calibration__refuses_maps() -> None:
    with pytest.raises(ShapeError, match=r"values and target are \(2, 3, 4\) and \(2, 4\); they must be \(R, C\) and"):
        calibration_bins(torch.zeros(2, 3, 4), torch.zeros(2, 4))
