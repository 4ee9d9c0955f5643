"""Reliable confidence and balanced classes, the loss of READ."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from robustmm.errors import ShapeError
from robustmm.losses.reliable_confidence import class_balance, confidence_adaptation

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "read.json").read_text())
WORKED = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.35, 0.35], [0.1, 0.1, 0.8]])
COLLAPSED = torch.tensor([[0.98, 0.01, 0.01]] * 3)


def logits_of(*shape: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_read_loss__matches_the_released_code_in_value_and_gradient(name: str) -> None:
    case = GOLDEN[name]
    logits = torch.tensor(case["logits"], dtype=torch.float64, requires_grad=True)
    confidence, balance = confidence_adaptation(logits.softmax(dim=1)), class_balance(logits.softmax(dim=1))
    (confidence - balance).backward()
    assert confidence.item() == pytest.approx(case["confidence"], abs=1e-10)
    assert balance.item() == pytest.approx(case["balance"], abs=1e-10)
    torch.testing.assert_close(logits.grad, torch.tensor(case["gradient"], dtype=torch.float64), atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("rows", "confidence", "released", "mean"),
    [(WORKED, 0.265208, 1.069670, 1.064025), (COLLAPSED, 0.019799, 0.389315, 0.111902)],
    ids=["spread", "collapsed"],
)
def test_worked_example(rows: torch.Tensor, confidence: float, released: float, mean: float) -> None:
    assert confidence_adaptation(rows).item() == pytest.approx(confidence, abs=1e-6)
    assert class_balance(rows).item() == pytest.approx(released, abs=1e-6)
    assert class_balance(rows, form="mean").item() == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize("form", ["softmax_sum", "mean"])
def test_read_loss__of_a_collapsed_batch_is_higher(form: str) -> None:
    spread, collapsed = (confidence_adaptation(rows) - class_balance(rows, form=form) for rows in (WORKED, COLLAPSED))
    assert collapsed > spread


@pytest.mark.parametrize(("largest", "slope"), [(0.7, -0.643325), (0.35, 0.049822), (math.exp(-1), 0.0)])
def test_confidence_adaptation__slope_changes_sign_at_gamma(largest: float, slope: float) -> None:
    rest = (1 - largest) / 4
    probability = torch.tensor([[largest, rest, rest, rest, rest]], dtype=torch.float64, requires_grad=True)
    confidence_adaptation(probability).backward()
    assert probability.grad is not None
    assert probability.grad[0, 0].item() == pytest.approx(slope, abs=1e-6)
    assert not probability.grad[0, 1:].any()


@pytest.mark.parametrize("gamma", [0.3, 0.5])
def test_confidence_adaptation__peaks_at_gamma(gamma: float) -> None:
    sizes = torch.linspace(0.26, 0.99, 400, dtype=torch.float64)
    losses = [confidence_adaptation(torch.stack([p, *[(1 - p) / 3] * 3])[None], gamma=gamma).item() for p in sizes]
    assert sizes[losses.index(max(losses))].item() == pytest.approx(gamma, abs=2e-3)
    assert max(losses) == pytest.approx(gamma, abs=1e-5)


def test_class_balance__is_largest_for_equal_shares() -> None:
    rows = torch.eye(4)
    for form in ("softmax_sum", "mean"):
        assert class_balance(rows, form=form).item() == pytest.approx(math.log(4), abs=1e-6)
        assert class_balance(rows[[0, 0, 1, 2]], form=form).item() < math.log(4) - 1e-3


def test_class_balance__released_form_grows_with_the_number_of_rows_and_the_mean_form_does_not() -> None:
    rows = logits_of(6, 4).softmax(dim=1)
    assert class_balance(rows.repeat(5, 1)) < class_balance(rows)
    torch.testing.assert_close(class_balance(rows.repeat(5, 1), form="mean"), class_balance(rows, form="mean"))


@pytest.mark.parametrize("form", ["softmax_sum", "mean"])
def test_read_loss__does_not_depend_on_the_order_of_rows_or_classes(form: str) -> None:
    rows = logits_of(5, 6).double().softmax(dim=1)
    for other in (rows.flip(0), rows.flip(1)):
        torch.testing.assert_close(class_balance(other, form=form), class_balance(rows, form=form))
        torch.testing.assert_close(confidence_adaptation(other), confidence_adaptation(rows))


@pytest.mark.parametrize("form", ["softmax_sum", "mean"])
def test_read_loss__has_finite_gradients_for_extreme_logits(form: str) -> None:
    logits = torch.tensor([[0.0, 2000.0, -2000.0], [0.0, 2000.0, -2000.0]], requires_grad=True)
    probability = logits.softmax(dim=1)  # exact zeros
    (confidence_adaptation(probability) - class_balance(probability, form=form)).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_read_loss__keeps_full_precision_under_autocast() -> None:
    probability = logits_of(64, 10).softmax(dim=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = confidence_adaptation(probability), class_balance(probability), class_balance(probability, form="mean")
        of_half = confidence_adaptation(probability.bfloat16())
    assert values[0] == confidence_adaptation(probability)
    assert values[1] == class_balance(probability)
    assert values[2] == class_balance(probability, form="mean")
    assert of_half.dtype == torch.float32


def test_read_loss__without_rows() -> None:
    assert confidence_adaptation(torch.zeros(0, 3)).item() == 0.0
    with pytest.raises(ShapeError, match="has no rows"):
        class_balance(torch.zeros(0, 3))


def test_read_loss__refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"probability is \(2, 3, 4, 4\); it must be \(R, K\)"):
        confidence_adaptation(torch.zeros(2, 3, 4, 4))
    with pytest.raises(ShapeError, match=r"probability is \(3,\)"):
        class_balance(torch.zeros(3))
