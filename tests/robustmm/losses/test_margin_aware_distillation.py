"""Margin-aware distillation: weights, both axes, and the two equal forms."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from robustmm.errors import ShapeError
from robustmm.losses import margin_aware_distillation as module
from robustmm.losses.margin_aware_distillation import margin_aware_distillation, margin_weights

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "losses.json").read_text())["margin_aware_distillation"]
Form = Literal["gram", "factored"]
Axis = Literal["row", "column"]

both_forms = pytest.mark.parametrize("form", ["gram", "factored"])
both_axes = pytest.mark.parametrize("axis", ["row", "column"])


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def golden(name: str) -> Tensor:
    return torch.tensor(GOLDEN[name], dtype=torch.float64)


def value_and_gradient(
    student: Tensor, teacher: Tensor, weights: Tensor, axis: Axis, form: Form
) -> tuple[float, Tensor]:
    student = student.clone().requires_grad_()
    loss = margin_aware_distillation(student, teacher, weights, axis=axis, form=form)
    (gradient,) = torch.autograd.grad(loss, student)
    return loss.item(), gradient


def test_margin_weights__are_the_shares_of_the_total_entropy() -> None:
    torch.testing.assert_close(margin_weights(golden("teacher_logits")), golden("weights"), atol=1e-6, rtol=0)


def test_margin_weights__of_equal_logits_are_uniform() -> None:
    torch.testing.assert_close(margin_weights(torch.zeros(4, 3)), torch.full((4,), 0.25))


def test_margin_weights__of_huge_logits_are_finite() -> None:
    weights = margin_weights(torch.tensor([[200.0, 0.0], [1e30, -1e30], [0.0, 0.0]]))
    torch.testing.assert_close(weights, torch.tensor([0.0, 0.0, 1.0]))


def test_margin_weights__are_uniform_when_the_teacher_is_certain_everywhere() -> None:
    assert margin_weights(torch.tensor([[200.0, 0.0], [0.0, 200.0]])).tolist() == [0.5, 0.5]


def test_margin_weights__carry_no_gradient_and_survive_half_precision() -> None:
    weights = margin_weights(torch.randn(3, 4, dtype=torch.float16, requires_grad=True))
    assert not weights.requires_grad
    assert weights.dtype == torch.float32


def test_margin_weights__refuse_maps() -> None:
    with pytest.raises(ShapeError, match=r"teacher_logits is \(2, 3, 4, 4\); it must be \(R, C\)"):
        margin_weights(torch.zeros(2, 3, 4, 4))


@both_forms
@both_axes
def test_margin_aware_distillation__matches_the_worked_value(axis: Axis, form: Form) -> None:
    weights = margin_weights(golden("teacher_logits"))
    value, _ = value_and_gradient(golden("student"), golden("teacher"), weights, axis, form)
    assert value == pytest.approx(GOLDEN[axis], abs=1e-6)


@both_forms
def test_margin_aware_distillation__matches_the_worked_gradient(form: Form) -> None:
    weights = margin_weights(golden("teacher_logits"))
    _, gradient = value_and_gradient(golden("student"), golden("teacher"), weights, "row", form)
    torch.testing.assert_close(gradient, golden("row_gradient"), atol=1e-6, rtol=0)


@both_axes
def test_margin_aware_distillation__with_uniform_weights_has_one_value(axis: Axis) -> None:
    value, _ = value_and_gradient(golden("student"), golden("teacher"), torch.full((3,), 1 / 3), axis, "gram")
    assert value == pytest.approx(GOLDEN["uniform"], abs=1e-6)


@both_axes
@pytest.mark.parametrize(("rows", "channels"), [(3, 7), (30, 4), (1, 5)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_margin_aware_distillation__has_two_equal_forms(
    axis: Axis, rows: int, channels: int, dtype: torch.dtype, tolerance: float
) -> None:
    student, teacher = normal(rows, channels, dtype=dtype), normal(rows, channels + 2, seed=1, dtype=dtype)
    weights = margin_weights(normal(rows, 3, seed=2, dtype=dtype))
    gram_value, gram_gradient = value_and_gradient(student, teacher, weights, axis, "gram")
    value, gradient = value_and_gradient(student, teacher, weights, axis, "factored")
    assert value == pytest.approx(gram_value, abs=tolerance)
    torch.testing.assert_close(gradient, gram_gradient, atol=tolerance, rtol=tolerance)


@both_forms
@both_axes
def test_margin_aware_distillation__has_the_gradient_of_its_value(axis: Axis, form: Form) -> None:
    teacher, weights = normal(6, 2, seed=1), margin_weights(normal(6, 3, seed=2))

    def loss(student: Tensor) -> Tensor:
        return margin_aware_distillation(student, teacher, weights, axis=axis, form=form)

    assert torch.autograd.gradcheck(loss, (normal(6, 2).requires_grad_(),))


@both_forms
def test_margin_aware_distillation__ignores_scale_and_rotation(form: Form) -> None:
    teacher, weights = normal(9, 3), margin_weights(normal(9, 4, seed=1))
    rotation, _ = torch.linalg.qr(normal(3, 3, seed=2))
    for student in (teacher, 1e-3 * teacher, teacher @ rotation):
        assert margin_aware_distillation(student, teacher, weights, form=form).item() == pytest.approx(0, abs=1e-12)


@both_forms
@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_margin_aware_distillation__holds_at_any_scale_in_float32(form: Form, scale: float) -> None:
    student, teacher = normal(9, 3, dtype=torch.float32), normal(9, 3, seed=1, dtype=torch.float32)
    weights = torch.full((9,), 1 / 9)
    plain, _ = value_and_gradient(student, teacher, weights, "row", form)
    value, gradient = value_and_gradient(scale * student, scale * teacher, weights, "row", form)
    assert value == pytest.approx(plain, rel=1e-4)
    assert gradient.isfinite().all()


@both_forms
@both_axes
def test_margin_aware_distillation__gives_zero_rows_a_finite_value_and_gradient(axis: Axis, form: Form) -> None:
    student, teacher = normal(5, 2), normal(5, 2, seed=1)
    student[0], teacher[0], teacher[1] = 0.0, 0.0, 0.0
    value, gradient = value_and_gradient(student, teacher, torch.full((5,), 0.2), axis, form)
    assert math.isfinite(value)
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 10


@both_forms
def test_margin_aware_distillation__of_all_zero_students_is_finite(form: Form) -> None:
    value, gradient = value_and_gradient(torch.zeros(4, 2), torch.ones(4, 2), torch.full((4,), 0.25), "row", form)
    assert value == pytest.approx(1.0)
    assert not gradient.any()


@both_forms
def test_margin_aware_distillation__does_not_depend_on_the_order_of_samples(form: Form) -> None:
    student, teacher, weights = normal(8, 2), normal(8, 2, seed=1), margin_weights(normal(8, 3, seed=2))
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    value, gradient = value_and_gradient(student, teacher, weights, "row", form)
    moved_value, moved_gradient = value_and_gradient(student[order], teacher[order], weights[order], "row", form)
    assert moved_value == pytest.approx(value, abs=1e-12)
    torch.testing.assert_close(moved_gradient, gradient[order])


def test_margin_aware_distillation__of_a_single_sample_is_zero() -> None:
    assert margin_aware_distillation(torch.ones(1, 3), torch.ones(1, 3) * 5, torch.ones(1)).item() == 0


def test_margin_aware_distillation__sends_no_gradient_to_teacher_or_weights() -> None:
    student, teacher = normal(4, 3).requires_grad_(), normal(4, 3, seed=1).requires_grad_()
    weights = torch.full((4,), 0.25, requires_grad=True)
    margin_aware_distillation(student, teacher, weights).backward()
    assert student.grad is not None
    assert teacher.grad is None
    assert weights.grad is None


@both_forms
def test_margin_aware_distillation__does_not_overflow_half_precision(form: Form) -> None:
    student = torch.full((3, 512), 12.0, dtype=torch.float16)  # 512 * 12^2 = 73728 > 65504
    student[0, :256] = -12.0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = margin_aware_distillation(student, student.flip(0), torch.full((3,), 1 / 3), form=form)
    exact = margin_aware_distillation(student.double(), student.flip(0).double(), torch.full((3,), 1 / 3), form=form)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)


@pytest.mark.parametrize(("rows", "expected"), [(12, "gram"), (13, "factored")])
def test_margin_aware_distillation__takes_the_cheaper_form(
    monkeypatch: pytest.MonkeyPatch, rows: int, expected: str
) -> None:
    def taken(name: str) -> Tensor:
        calls.append(name)
        return torch.zeros(rows)

    calls: list[str] = []
    monkeypatch.setattr(module, "_gram_distance", lambda *_: taken("gram"))
    monkeypatch.setattr(module, "_factored_distance", lambda *_: taken("factored"))
    margin_aware_distillation(normal(rows, 4), normal(rows, 4, seed=1), torch.ones(rows))
    assert calls == [expected]


def test_margin_aware_distillation__refuses_unequal_rows() -> None:
    with pytest.raises(ShapeError, match=r"are \(3, 2\), \(4, 2\) and \(3,\); they must be \(N, D\), \(N, D\) and"):
        margin_aware_distillation(torch.zeros(3, 2), torch.zeros(4, 2), torch.zeros(3))


@both_forms
def test_margin_aware_distillation__of_normalised_halves_matches_the_worked_value(form: Form) -> None:
    weights = golden("weights")
    loss = margin_aware_distillation(golden("student"), golden("teacher"), weights, normalise="halves", form=form)
    assert loss.item() == pytest.approx(GOLDEN["halves"], abs=1e-5)


@both_axes
def test_margin_aware_distillation__of_normalised_halves_has_two_equal_forms(axis: Axis) -> None:
    student, teacher, weights = normal(9, 4), normal(9, 3, seed=1), normal(9, seed=2).abs()
    values, gradients = [], []
    for form in ("gram", "factored"):
        own = student.clone().requires_grad_()
        loss = margin_aware_distillation(own, teacher, weights, axis=axis, normalise="halves", form=form)  # type: ignore[arg-type]
        values.append(loss.item())
        gradients.append(torch.autograd.grad(loss, own)[0])
    assert values[0] == pytest.approx(values[1], rel=1e-10)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-8, atol=1e-10)
