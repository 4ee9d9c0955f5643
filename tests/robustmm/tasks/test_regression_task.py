"""Regression: units, losses and what is counted."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import mean_absolute_error, root_mean_squared_error
from torch import Tensor

from robustmm.errors import DataError, ShapeError
from robustmm.losses.student_t import StudentT, pack_student_t
from robustmm.tasks.regression import RegressionTask

NAMES = ("weight", "height")
#: Mean 3, deviation 2, mean absolute deviation 2.
FEW = torch.tensor([1.0, 5.0, 1.0, 5.0])


def targets(rows: int = 60) -> Tensor:
    """Two quantities of very different size."""
    noise = torch.randn(rows, 2, generator=torch.Generator().manual_seed(1))
    return torch.tensor([70.0, -4000.0]) + noise * torch.tensor([9.0, 0.5e3])


def fitted(names: tuple[str, ...] = NAMES, given: Tensor | None = None, **options) -> RegressionTask:
    task = RegressionTask(names, **options)
    task.fit(iter(targets() if given is None else given))
    return task


def logits(rows: int = 60, columns: int = 2) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(2))


def scores(task: RegressionTask, *parts: tuple[Tensor, Tensor]) -> dict[str, float | None]:
    metrics = task.metrics()
    for part in parts:
        metrics.update(*part)
    return metrics.compute()


def test_task__says_what_it_is() -> None:
    task = RegressionTask(["age"])
    assert (task.num_outputs, task.dense, task.continuous, task.needs_targets) == (1, False, True, True)
    assert (task.score, task.directions["mae"], task.directions["correlation"]) == ("mae", "min", "max")
    assert task.target_size(torch.zeros(4, 2)) == ()


def test_fit__takes_mean_and_deviation_by_quantity() -> None:
    task = fitted()
    np.testing.assert_allclose(task.mean, targets().mean(dim=0), rtol=1e-6)
    np.testing.assert_allclose(task.deviation, targets().numpy().std(axis=0), rtol=1e-5)


def test_fit__a_quantity_that_does_not_vary_is_not_blown_up() -> None:
    task = fitted(("age",), torch.full((3,), 40.0))
    assert (task.mean.tolist(), task.deviation.tolist()) == ([40.0], [1.0])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.tensor(3), "training target 1 is torch.int64"),
        (torch.tensor([1.0, 2.0, 3.0]), r"shape \(3,\); regression of weight, height needs floats of shape \(2,\)"),
        (torch.tensor([1.0, math.nan]), "training target 1 is .*; every target must be finite"),
    ],
)
def test_fit__refuses_other_targets(target: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        RegressionTask(NAMES).fit([torch.zeros(2), target])


def test_fit__refuses_nothing() -> None:
    with pytest.raises(DataError, match="at least one training target"):
        RegressionTask(NAMES).fit([])


def test_predict__is_in_the_unit_of_the_targets() -> None:
    task = fitted(("age",), FEW)
    assert task.predict(torch.tensor([[0.0], [1.0], [-2.0]])).tolist() == [[3.0], [5.0], [-1.0]]
    packed = pack_student_t(StudentT(torch.tensor([[1.0]]), torch.tensor([[7.0]]), torch.tensor([[8.0]])))
    assert task.predict(packed).tolist() == [[5.0]]


@pytest.mark.parametrize(
    ("form", "expected"),
    [("mse", (0.25 + 4.0) / 2), ("l1", (0.5 + 2.0) / 2), ("huber", (0.125 + 1.0 * (2.0 - 0.5)) / 2)],
)
def test_loss__worked_by_hand(form: str, expected: float) -> None:
    # Standardised targets are 1 and -1; errors 0.5 and 2.
    task = fitted(("age",), FEW, loss=form)
    given, target = torch.tensor([[0.5], [1.0]]), torch.tensor([5.0, 1.0])
    assert task.loss(given, target).item() == pytest.approx(expected)
    assert task.sample_losses(given, target).mean().item() == pytest.approx(expected)
    assert task.masked_loss(given, target, torch.tensor([True, True])).item() == pytest.approx(expected)


def test_loss__huber_delta_is_where_the_line_begins() -> None:
    task = fitted(("age",), FEW, loss="huber", huber_delta=0.5)
    assert task.loss(torch.tensor([[3.0]]), torch.tensor([5.0])).item() == pytest.approx(0.5 * (2.0 - 0.25))


@pytest.mark.parametrize(("form", "slope"), [("mse", 2 * 2.0 / 4), ("l1", 1 / 4), ("huber", 1 / 4)])
def test_loss__gradient_is_shared_by_batch_and_quantities(form: str, slope: float) -> None:
    task = fitted(loss=form)
    given = task.standardised(targets(2)).requires_grad_()
    (gradient,) = torch.autograd.grad(task.loss(given + torch.tensor([[2.0, 0.0], [0.0, 0.0]]), targets(2)), given)
    assert gradient[0, 0].item() == pytest.approx(slope)


def test_loss__a_constant_at_the_mean_has_unit_size_in_any_unit() -> None:
    assert fitted().loss(torch.zeros(60, 2), targets()).item() == pytest.approx(1, rel=1e-5)


def test_loss__looks_at_the_location_alone() -> None:
    given = logits(columns=6).requires_grad_()
    task = fitted()
    loss = task.loss(given, targets())
    (gradient,) = torch.autograd.grad(loss, given)
    assert loss.item() == task.loss(given[:, :2], targets()).item()
    assert gradient[:, :2].all()
    assert not gradient[:, 2:].any()


def test_loss__refuses_logits_of_another_layout() -> None:
    with pytest.raises(ShapeError, match=r"\(B, 2\), or \(B, 6\)"):
        fitted().loss(torch.zeros(60, 3), targets())


def test_loss__leaves_half_precision() -> None:
    task = fitted()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert task.loss(logits().bfloat16(), targets()).dtype == torch.float32


def test_masked_loss__divides_by_the_batch_and_hides_what_is_not_kept() -> None:
    task = fitted(("age",), FEW)
    given = torch.tensor([[0.0], [math.inf]], requires_grad=True)
    loss = task.masked_loss(given, torch.tensor([5.0, 1.0]), torch.tensor([True, False]))
    assert loss.item() == pytest.approx(0.5)
    nothing = task.masked_loss(given, torch.tensor([5.0, 1.0]), torch.tensor([False, False]))
    assert nothing.item() == 0


def test_subset_loss__is_the_loss_of_the_kept_samples() -> None:
    task, keep = fitted(), torch.arange(60) % 3 == 0
    expected = task.loss(logits()[keep], targets()[keep])
    torch.testing.assert_close(task.subset_loss(logits(), targets(), keep), expected)


def test_one_quantity__may_have_an_axis_of_its_own_or_none() -> None:
    given = targets()[:, 0]
    task = fitted(("age",), given)
    assert torch.equal(fitted(("age",), given[:, None]).mean, task.mean)
    one = logits(columns=1)
    assert task.loss(one, given) == task.loss(one, given[:, None])
    assert scores(task, (one, given)) == scores(task, (one, given[:, None]))


def test_rows__are_the_samples_with_targets_in_their_unit() -> None:
    rows = fitted().rows(logits(), targets())
    assert torch.equal(rows.target, targets())
    assert torch.equal(rows.sample, torch.arange(60))


def test_scores__are_those_of_scikit_learn_and_scipy() -> None:
    task, given, true = fitted(), logits(), targets().double().numpy()
    predicted = (task.mean.double() + task.deviation.double() * given.double()).numpy()
    found = scores(task, (given, targets()))
    assert found["mae"] == pytest.approx(mean_absolute_error(true, predicted), rel=1e-6)
    assert found["rmse"] == pytest.approx(root_mean_squared_error(true, predicted), rel=1e-6)
    expected = [stats.pearsonr(predicted[:, column], true[:, column]).statistic for column in range(2)]
    assert found["correlation"] == pytest.approx(np.mean(expected), rel=1e-6)
    assert found["nll"] is None


def test_nll__is_scipys_in_the_unit_of_the_targets() -> None:
    task, given, true = fitted(), logits(columns=6), targets().double().numpy()
    location, log_scale, log_df = (part.double().numpy() for part in given.split(2, dim=1))
    mean, deviation = task.mean.double().numpy(), task.deviation.double().numpy()
    scale = np.exp(log_scale) * deviation
    expected = -stats.t.logpdf(true, np.exp(log_df), mean + deviation * location, scale).mean()
    found = scores(task, (given, targets()))
    assert found["nll"] == pytest.approx(expected, rel=1e-6)
    assert found["mae"] == scores(task, (given[:, :2], targets()))["mae"]


def test_nll__has_no_value_unless_every_batch_brings_a_distribution() -> None:
    given = logits(columns=6)
    assert scores(fitted(), (given[:30], targets()[:30]), (given[30:, :2], targets()[30:]))["nll"] is None


@pytest.mark.parametrize(("factor", "shift"), [(1e-3, 0.0), (1000.0, 5.0), (1.0, -300.0)])
def test_unit__scaling_and_shifting_targets_does_so_to_predictions_and_leaves_the_loss(factor, shift) -> None:
    task, other = fitted(), fitted(given=targets().double() * factor + shift)
    moved = targets().double() * factor + shift
    torch.testing.assert_close(
        other.predict(logits().double()), task.predict(logits().double()) * factor + shift, rtol=1e-5, atol=1e-4
    )
    torch.testing.assert_close(
        other.loss(logits().double(), moved), task.loss(logits().double(), targets().double()), rtol=1e-4, atol=0
    )
    ours, theirs = scores(task, (logits(columns=6), targets())), scores(other, (logits(columns=6), moved))
    assert theirs["mae"] == pytest.approx(factor * ours["mae"], rel=1e-4)
    assert theirs["rmse"] == pytest.approx(factor * ours["rmse"], rel=1e-4)
    assert theirs["correlation"] == pytest.approx(ours["correlation"], rel=1e-4)
    assert theirs["nll"] == pytest.approx(ours["nll"] + math.log(factor), rel=1e-4)


def test_metrics__travel_and_add_up() -> None:
    task, given = fitted(), logits(columns=6)
    first, second = task.metrics(), task.metrics()
    first.update(given[:7], targets()[:7])
    second.update(given[7:], targets()[7:])
    first.merge(pickle.loads(pickle.dumps(second)))
    first.merge(task.metrics())
    assert first.count == 60
    assert first.compute() == {key: pytest.approx(value) for key, value in scores(task, (given, targets())).items()}


def test_metrics__without_samples_have_no_value() -> None:
    metrics = fitted().metrics()
    metrics.update(torch.zeros(0, 2), torch.zeros(0, 2))
    assert metrics.compute() == {"mae": None, "rmse": None, "correlation": None, "nll": None}
    assert not metrics.degenerate


def test_degenerate__is_a_constant_where_the_truth_varies() -> None:
    task = fitted()
    for given, expected in (
        (torch.zeros(60, 2), True),
        (torch.full((60, 2), 3.0) + 1e-6 * logits(), True),  # rounding of batches of different size
        (logits() * torch.tensor([1.0, 0.0]), False),  # one quantity is told
        (logits() * 0.1, False),
    ):
        metrics = task.metrics()
        metrics.update(given, targets())
        assert metrics.degenerate == expected
    metrics = task.metrics()
    metrics.update(torch.zeros(1, 2), targets()[:1])
    assert not metrics.degenerate


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_degenerate__is_a_prediction_that_is_not_finite_and_no_score_hides_it(value: float) -> None:
    given = logits()
    given[5, 1] = value
    metrics = fitted().metrics()
    metrics.update(given, targets())
    assert metrics.degenerate
    assert (metrics.compute()["mae"], metrics.compute()["rmse"]) == (None, None)


def test_chances__are_what_the_mean_of_the_targets_reaches() -> None:
    task = fitted()
    found = scores(task, (torch.zeros(60, 2), targets()))
    normal = pack_student_t(StudentT(torch.zeros(60, 2), torch.zeros(60, 2), torch.full((60, 2), 50.0)))
    chances = task.chances({**task.directions, "of_a_plugin": "max"})
    assert task.chance() == chances["mae"] == pytest.approx(found["mae"], rel=1e-6)
    assert chances["rmse"] == pytest.approx(found["rmse"], rel=1e-6)
    assert chances["nll"] == pytest.approx(scores(task, (normal, targets()))["nll"], rel=1e-6)
    assert (chances["correlation"], chances["of_a_plugin"]) == (0.0, None)


def test_unit__is_part_of_the_saved_weights() -> None:
    loaded = RegressionTask(NAMES)
    loaded.load_state_dict(fitted().state_dict())
    assert torch.equal(loaded.predict(logits()), fitted().predict(logits()))
    assert loaded.chance() == fitted().chance()
