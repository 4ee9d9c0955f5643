"""Maximum mean discrepancy of features, and of features and predictions together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from robustmm.errors import ShapeError
from robustmm.losses.knowledge_distillation import soft_target_distillation
from robustmm.losses.maximum_mean_discrepancy import joint_maximum_mean_discrepancy, maximum_mean_discrepancy

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "one_stage.json").read_text())
#: The worked example: features, and logits whose softmax are the predictions.
SOURCE, TARGET = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 1.0]])
STUDENT, TEACHER = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0], [0.0, 2.0]])


def double(values: list, *, requires_grad: bool = False) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=requires_grad)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("case", GOLDEN["mmd"]["cases"], ids=lambda c: f"{c['num_kernels']} by {c['factor']}")
def test_maximum_mean_discrepancy__matches_the_released_code_in_value_and_gradient(case: dict) -> None:
    source = double(GOLDEN["mmd"]["source"], requires_grad=True)
    target = double(GOLDEN["mmd"]["target"])
    value = maximum_mean_discrepancy(source, target, num_kernels=case["num_kernels"], factor=case["factor"])
    value.backward()
    assert value.item() == pytest.approx(case["mmd"], abs=1e-10)
    torch.testing.assert_close(source.grad, double(case["gradient"]), atol=1e-10, rtol=0)


def test_joint_adaptation__matches_the_released_code_in_value_and_gradient() -> None:
    case = GOLDEN["joint"]
    source, student = double(case["source"], requires_grad=True), double(case["student"], requires_grad=True)
    marginal = maximum_mean_discrepancy(source, double(case["target"]))
    conditional = soft_target_distillation(student, double(case["teacher"]), temperature=2.0)
    loss = case["alpha"] * marginal + case["beta"] * conditional
    loss.backward()
    assert conditional.item() == pytest.approx(GOLDEN["soft_targets"]["kl"], abs=1e-10)
    assert loss.item() == pytest.approx(case["loss"], abs=1e-10)
    torch.testing.assert_close(source.grad, double(case["gradient_features"]), atol=1e-10, rtol=0)
    torch.testing.assert_close(student.grad, double(case["gradient_logits"]), atol=1e-10, rtol=0)


def test_maximum_mean_discrepancy__matches_the_released_code_on_flattened_maps() -> None:
    case = GOLDEN["flattened"]
    value = maximum_mean_discrepancy(double(case["source"]).flatten(1), double(case["target"]).flatten(1))
    assert value.item() == pytest.approx(case["mmd"], abs=1e-10)


def test_worked_example() -> None:
    assert maximum_mean_discrepancy(SOURCE, TARGET).item() == pytest.approx(3.564948, abs=2e-6)
    assert maximum_mean_discrepancy(SOURCE, TARGET, num_kernels=1).item() == pytest.approx(0.776870, abs=1e-6)
    joint = joint_maximum_mean_discrepancy(SOURCE, TARGET, STUDENT.softmax(dim=1), TEACHER.softmax(dim=1))
    assert joint.item() == pytest.approx(3.322820, abs=2e-6)


def test_maximum_mean_discrepancy__equals_the_form_with_all_differences_for_unequal_numbers_of_rows() -> None:
    source, target = normal(5, 7).double() + 100, normal(3, 7, seed=1).double() + 100
    source.requires_grad_()
    rows = torch.cat([source, target])
    distances = (rows[:, None] - rows).square().sum(dim=2)
    middle = distances.detach().sum() / (8 * 7)
    kernel = torch.stack([(-distances / (middle * 2.0**power)).exp() for power in (-2, -1, 0, 1, 2)]).sum(dim=0)
    expected = kernel[:5, :5].mean() + kernel[5:, 5:].mean() - kernel[:5, 5:].mean() - kernel[5:, :5].mean()
    value = maximum_mean_discrepancy(source, target)
    torch.testing.assert_close(value, expected)
    own, other = (torch.autograd.grad(scalar, source, retain_graph=True)[0] for scalar in (value, expected))
    torch.testing.assert_close(own, other)


def test_maximum_mean_discrepancy__keeps_its_digits_far_from_the_origin() -> None:
    source, target = normal(6, 32), normal(6, 32, seed=1)
    exact = maximum_mean_discrepancy(source.double(), target.double())
    shifted = maximum_mean_discrepancy(source + 64, target + 64)
    assert shifted.item() == pytest.approx(exact.item(), rel=1e-4)


def test_maximum_mean_discrepancy__ignores_pairing_sides_scale_and_origin() -> None:
    source, target = normal(6, 4).double(), normal(6, 4, seed=1).double()
    expected = maximum_mean_discrepancy(source, target)
    torch.testing.assert_close(maximum_mean_discrepancy(source, target[[3, 0, 5, 1, 4, 2]]), expected)
    torch.testing.assert_close(maximum_mean_discrepancy(target, source), expected)
    torch.testing.assert_close(maximum_mean_discrepancy(30 * source, 30 * target), expected)
    torch.testing.assert_close(maximum_mean_discrepancy(source - 5, target - 5), expected)


def test_maximum_mean_discrepancy__of_equal_sets_is_zero_and_grows_with_distance() -> None:
    source = normal(8, 4)
    assert maximum_mean_discrepancy(source, source.clone()).item() == pytest.approx(0.0, abs=1e-5)
    values = [maximum_mean_discrepancy(source, source + shift).item() for shift in (0.1, 0.5, 2.0, 50.0)]
    assert values == sorted(values)
    assert 0 < values[0] < values[-1] <= 10


def test_discrepancies__are_zero_with_finite_gradient_where_all_rows_are_equal() -> None:
    source = torch.full((3, 4), 7.3, requires_grad=True)
    target, probability = torch.full((3, 4), 7.3), torch.full((3, 2), 0.5)
    value = maximum_mean_discrepancy(source, target)
    value = value + joint_maximum_mean_discrepancy(source, target, probability, probability)
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    assert source.grad is not None
    assert source.grad.isfinite().all()


@pytest.mark.parametrize("rows", [(1, 1), (1, 4), (4, 1), (0, 3)])
def test_discrepancies__of_fewer_than_two_rows_are_zero_with_gradient_zero(rows: tuple[int, int]) -> None:
    source, target = normal(rows[0], 3).requires_grad_(), normal(rows[1], 3, seed=1).requires_grad_()
    of_source, of_target = source.softmax(dim=1), target.softmax(dim=1)
    value = maximum_mean_discrepancy(source, target)
    value = value + joint_maximum_mean_discrepancy(source, target, of_source, of_target)
    value.backward()
    assert value.item() == 0.0
    assert source.grad is not None
    assert target.grad is not None
    assert not source.grad.any()
    assert not target.grad.any()


def test_joint_discrepancy__of_equal_predictions_is_that_of_the_features() -> None:
    source, target = normal(5, 4), normal(5, 4, seed=1)
    same = torch.full((5, 3), 1 / 3)
    value = joint_maximum_mean_discrepancy(source, target, same, same)
    torch.testing.assert_close(value, maximum_mean_discrepancy(source, target))


def test_joint_discrepancy__sees_predictions_where_features_agree() -> None:
    features = normal(6, 4)
    logits = normal(6, 3, seed=1).requires_grad_()
    other = normal(6, 3, seed=2).mul(5).softmax(dim=1)
    value = joint_maximum_mean_discrepancy(features, features.clone(), logits.softmax(dim=1), other)
    value.backward()
    assert value.item() > 0.01
    assert logits.grad is not None
    assert logits.grad.any()


def test_discrepancies__keep_full_precision_under_autocast() -> None:
    source, target = 12 * normal(6, 512), 12 * normal(6, 512, seed=1)  # squares leave the range of float16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = maximum_mean_discrepancy(source, target)
        of_half = maximum_mean_discrepancy(source.half(), target.half())
    assert torch.equal(value, maximum_mean_discrepancy(source, target))
    assert of_half.dtype == torch.float32
    assert of_half.isfinite()


def test_discrepancies__refuse_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"are \(2, 3\) and \(2, 4\); they must be \(R, D\) and \(R', D\)"):
        maximum_mean_discrepancy(torch.zeros(2, 3), torch.zeros(2, 4))
    features, probability = torch.zeros(2, 3), torch.zeros(3, 2)
    with pytest.raises(ShapeError, match="features have 2 and 2 rows, predictions 3 and 3"):
        joint_maximum_mean_discrepancy(features, features, probability, probability)
