"""Logit, soft-target and similarity distillation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from robustmm.errors import ShapeError
from robustmm.losses.knowledge_distillation import (
    logit_distillation,
    similarity_distillation,
    soft_target_distillation,
)

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "losses.json").read_text())["knowledge_distillation"]
Loss = Callable[[Tensor, Tensor], Tensor]

every_loss = pytest.mark.parametrize("loss", [logit_distillation, soft_target_distillation, similarity_distillation])


def golden(name: str) -> Tensor:
    return torch.tensor(GOLDEN[name])


def test_logit_distillation__matches_the_worked_value() -> None:
    assert logit_distillation(golden("student_logits"), golden("teacher_logits")).item() == GOLDEN["logit"]


@pytest.mark.parametrize("temperature", [1, 4])
def test_soft_target_distillation__matches_the_worked_value(temperature: int) -> None:
    value = soft_target_distillation(golden("student_logits"), golden("teacher_logits"), temperature=temperature)
    assert value.item() == pytest.approx(GOLDEN["soft_target"][str(temperature)], abs=1e-6)


def test_soft_target_distillation__is_finite_for_a_certain_teacher() -> None:
    student = torch.tensor([[0.0, 300.0]], requires_grad=True)
    value = soft_target_distillation(student, torch.tensor([[300.0, 0.0]]), temperature=1.0)
    value.backward()
    assert value.item() == pytest.approx(300.0)
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_similarity_distillation__matches_the_worked_value() -> None:
    value = similarity_distillation(golden("student_features"), golden("teacher_features"))
    assert value.item() == pytest.approx(GOLDEN["similarity"], abs=1e-6)


def test_similarity_distillation__of_half_precision_features_is_exact() -> None:
    student, teacher = golden("student_features"), golden("teacher_features")
    assert similarity_distillation(student.bfloat16(), teacher.bfloat16()) == similarity_distillation(student, teacher)


def test_similarity_distillation__of_one_sample_or_zero_rows_is_finite() -> None:
    assert similarity_distillation(torch.ones(1, 2), torch.ones(1, 2)).item() == 0
    assert similarity_distillation(torch.zeros(3, 2), torch.zeros(3, 2)).item() == 0


@every_loss
def test_every_distillation_loss__is_zero_with_zero_gradient_when_student_equals_teacher(loss: Loss) -> None:
    student = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = loss(student, student.detach())
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert student.grad is not None
    assert student.grad.abs().max().item() == pytest.approx(0, abs=1e-6)


@every_loss
def test_every_distillation_loss__sends_no_gradient_to_the_teacher(loss: Loss) -> None:
    student, teacher = torch.eye(3, requires_grad=True), torch.ones(3, 3, requires_grad=True)
    loss(student, teacher).backward()
    assert student.grad is not None
    assert student.grad.any()
    assert teacher.grad is None


@every_loss
def test_every_distillation_loss__keeps_full_precision_under_autocast(loss: Loss) -> None:
    student, teacher = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(student, teacher), loss(student.clone(), teacher))
        inside = loss(student, teacher)
    assert torch.equal(inside, loss(student, teacher))


@pytest.mark.parametrize("loss", [logit_distillation, soft_target_distillation])
def test_logit_losses__refuse_unequal_shapes(loss: Loss) -> None:
    with pytest.raises(ShapeError, match=r"_distillation: student and teacher are \(2, 3\) and \(2, 4\); both must be"):
        loss(torch.zeros(2, 3), torch.zeros(2, 4))
