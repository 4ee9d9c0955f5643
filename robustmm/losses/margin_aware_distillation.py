"""Margin-aware distillation: hand over which samples resemble which, with more weight where the teacher is unsure.

Source: MMANet (CVPR 2023, arXiv:2304.08028), section 3.3, and its released code.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from robustmm.errors import ShapeError
from robustmm.losses.precision import full_precision
from robustmm.losses.similarity_product import similarity_product

#: Total entropy below which a teacher has no margin left to weigh by.
_MIN_TOTAL_ENTROPY = 1e-12
#: Rows per channel from which D x D products cost less: 6 N D^2 multiplications against 2 N^2 D.
_FACTORED_FROM = 3


def margin_weights(teacher_logits: Tensor) -> Tensor:
    """Share of each row in the teacher's total prediction entropy.

    Args:
        teacher_logits: (R, C), any size; natural logarithm is used, so a row's entropy lies in [0, ln C].

    Returns:
        (R,), at least 0, sum 1, without gradient, at least float32; uniform if the teacher is certain of every row.

    Raises:
        ShapeError: The logits are not (R, C).
    """
    if teacher_logits.ndim != 2:
        raise ShapeError(f"margin_weights: teacher_logits is {tuple(teacher_logits.shape)}; it must be (R, C)")
    with full_precision(teacher_logits.detach()) as (logits,):
        # entr(0) = 0, where p * log(p) is NaN once p underflows (a logit gap above 103 in float32).
        entropy = torch.special.entr(logits.softmax(dim=1)).sum(dim=1)
        total = entropy.sum()
        uniform = torch.full_like(entropy, 1 / max(len(entropy), 1))
        return torch.where(total < _MIN_TOTAL_ENTROPY, uniform, entropy / total.clamp_min(_MIN_TOTAL_ENTROPY))


def margin_aware_distillation(
    student: Tensor,
    teacher: Tensor,
    weights: Tensor,
    *,
    axis: Literal["row", "column"] = "row",
    normalise: Literal["row", "halves"] = "row",
    form: Literal["auto", "gram", "factored"] = "auto",
) -> Tensor:
    """Weighted squared distance of the row-normalised Gram matrices of student and teacher.

    With G = f f^T and G' = G with unit rows, the value is sum_i w_i sum_j (G'_student,ij - G'_teacher,ij)^2. Features
    may have any scale. A zero row has zero similarities and receives no gradient through its own norm.

    Args:
        student: Features, (N, D); the only input that receives a gradient.
        teacher: Features, (N, D').
        weights: (N,), as from `margin_weights`.
        axis: ``row`` weighs sample i's similarities (the paper; the released segmentation code); ``column`` puts w_j
            on column j (the released classification code). They differ, because G' is not symmetric.
        normalise: ``row`` gives each row of G unit length; ``halves`` gives it to each of its two halves, which meet at
            N // 2, as the released segmentation code does to save memory. The value is then another one.
        form: ``gram`` builds N x N matrices, ``factored`` needs D x D products only; the same function, value and
            gradient, which the factored form can be differentiated for once. ``auto`` takes the cheaper one.

    Returns:
        Scalar, at least 0, at most 4 times the sum of the weights for rows of unit length. At least float32.

    Raises:
        ShapeError: The number of rows differs, or features are not matrices.
    """
    _check(student, teacher, weights)
    with full_precision(student, teacher.detach(), weights.detach()) as (student, teacher, weights):
        rows, channels = len(student), max(student.shape[1], teacher.shape[1])
        factored = rows > _FACTORED_FROM * channels if form == "auto" else form == "factored"
        distance = _factored_distance if factored else _gram_distance
        blocks = [slice(None)] if normalise == "row" else [slice(rows // 2), slice(rows // 2, None)]
        if axis == "row":
            return (weights * sum(distance(student, teacher, block, None) for block in blocks)).sum()
        return torch.stack([distance(student, teacher, block, weights[block]).sum() for block in blocks]).sum()


def _gram_distance(student: Tensor, teacher: Tensor, block: slice, column_weights: Tensor | None) -> Tensor:
    """Squared distance per row over a block of columns, (N,), from the N x N matrices."""
    error = (_unit_gram(student, block) - _unit_gram(teacher, block)).square()  # (N, columns)
    return error.sum(dim=1) if column_weights is None else error @ column_weights


def _factored_distance(student: Tensor, teacher: Tensor, block: slice, column_weights: Tensor | None) -> Tensor:
    """Squared distance per row over a block of columns, (N,), without an N x N matrix."""
    own_scale, other_scale = _inverse_largest(student), _inverse_largest(teacher)

    def product(weights: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
        scale_a, scale_b = (own_scale if features is student else other_scale for features in (a, b))
        return similarity_product(a, b, scale_a, scale_b, block, weights)

    student_square, teacher_square = product(None, student, student), product(None, teacher, teacher)
    student_inverse, teacher_inverse = _inverse_root(student_square), _inverse_root(teacher_square)
    if column_weights is not None:
        student_square = product(column_weights, student, student)
        teacher_square = product(column_weights, teacher, teacher)
    own = student_square * student_inverse.square()
    other = teacher_square * teacher_inverse.square()
    shared = product(column_weights, student, teacher) * student_inverse * teacher_inverse
    return (own + other - 2 * shared).clamp_min(0)  # below 0 by rounding alone


def _unit_gram(features: Tensor, block: slice) -> Tensor:
    features = features * _inverse_largest(features)
    gram = features @ features[block].T
    return gram * _inverse_root(gram.square().sum(dim=1))[:, None]


def _inverse_root(squares: Tensor) -> Tensor:
    """1 / sqrt(squares), and 0 with gradient 0 where a row is zero."""
    zero = squares <= torch.finfo(squares.dtype).tiny
    return squares.masked_fill(zero, 1.0).rsqrt().masked_fill(zero, 0.0)


def _inverse_largest(features: Tensor) -> Tensor:
    """1 / the largest entry: the loss ignores scale, but fourth powers would leave the range of float32."""
    largest = features.detach().abs().amax() if features.numel() else features.new_ones(())
    return 1 / torch.where(largest > 0, largest, torch.ones_like(largest))


def _check(student: Tensor, teacher: Tensor, weights: Tensor) -> None:
    if student.ndim != 2 or teacher.ndim != 2 or not len(student) == len(teacher) == len(weights) or weights.ndim != 1:
        given = f"{tuple(student.shape)}, {tuple(teacher.shape)} and {tuple(weights.shape)}"
        raise ShapeError(
            f"margin_aware_distillation: student, teacher and weights are {given}; they must be (N, D), (N, D) and (N,)"
        )
