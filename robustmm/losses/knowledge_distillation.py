"""Distillation losses shared by many methods; each is 0 with gradient 0 when student and teacher agree."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from robustmm.errors import ShapeError
from robustmm.losses.margin_aware_distillation import margin_aware_distillation
from robustmm.losses.precision import full_precision


def logit_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error of logits over rows and classes.

    Args:
        student: Logits, (R, C).
        teacher: Logits, (R, C); receives no gradient.

    Returns:
        Scalar, at least float32.

    Raises:
        ShapeError: The shapes are not both (R, C).

    Source:
        Ba and Caruana (NeurIPS 2014, arXiv:1312.6184).
    """
    _check("logit_distillation", student, teacher)
    with full_precision(student, teacher.detach()) as (student, teacher):
        return F.mse_loss(student, teacher)


def soft_target_distillation(student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor:
    """KL divergence of the student's softened class probabilities from the teacher's, times temperature squared.

    The factor keeps the size of the gradient when the temperature changes.

    Args:
        student: Logits, (R, C).
        teacher: Logits, (R, C); receives no gradient.
        temperature: Divides both logits, above 0.

    Returns:
        Scalar in nats, mean over rows, at least float32.

    Raises:
        ShapeError: The shapes are not both (R, C).

    Source:
        Hinton et al. (2015, arXiv:1503.02531).
    """
    _check("soft_target_distillation", student, teacher)
    with full_precision(student, teacher.detach()) as (student, teacher):
        log_student = (student / temperature).log_softmax(dim=1)
        log_teacher = (teacher / temperature).log_softmax(dim=1)
        return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


def similarity_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error of the row-normalised N x N similarity matrices (similarity-preserving distillation).

    Equal to `margin_aware_distillation` with uniform weights, divided by N.

    Args:
        student: Features, (N, D).
        teacher: Features, (N, D'); receives no gradient.

    Returns:
        Scalar, at least float32; 0 for a batch of one.

    Raises:
        ShapeError: The number of rows differs, or features are not matrices.

    Source:
        Tung and Mori (ICCV 2019, arXiv:1907.09682).
    """
    rows = max(len(student), 1)
    ones = torch.ones(len(student), device=student.device)
    return margin_aware_distillation(student, teacher, ones) / rows**2


def _check(name: str, student: Tensor, teacher: Tensor) -> None:
    if student.ndim != 2 or student.shape != teacher.shape:
        given = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        raise ShapeError(f"{name}: student and teacher are {given}; both must be (R, C)")
