"""Products of two similarity matrices, row by row, without the matrices."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Rows that are worked on at once: enough for fast products, few enough that no temporary counts beside the features.
CHUNK = 1024


def similarity_product(
    a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, columns: slice, weights: Tensor | None
) -> Tensor:
    """``sum_j v_j (a_i . a_j) (b_i . b_j)`` over some j for every row i, with the features scaled beforehand.

    It equals ``a_i^T (sum_j v_j a_j b_j^T) b_i``, which takes a D x D' matrix where the similarities take N x N. Value
    and gradient go through the rows in chunks, so that beside the gradient nothing of the features' size is made; it
    can be differentiated once.

    Args:
        a: (N, D), float32 or float64.
        b: (N, D'); may be ``a`` itself, whose gradient then has both parts.
        scale_a: Scalar tensor that multiplies ``a``; a constant.
        scale_b: Likewise.
        columns: The rows j that are summed over.
        weights: (number of columns,) v; a constant. None means 1.

    Returns:
        (N,).
    """
    return cast(Tensor, _SimilarityProduct.apply(a, b, scale_a, scale_b, columns, weights))


class _SimilarityProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, columns: slice, weights: Tensor | None
    ) -> Tensor:
        # Scaled before the products, since these could leave the range of float32.
        outer = _outer(a[columns], b[columns], scale_a, scale_b, weights)  # (D, D')
        result = torch.cat([((own * scale_a) @ outer * (other * scale_b)).sum(dim=1) for own, other in _chunks(a, b)])
        ctx.save_for_backward(a, b, scale_a, scale_b, outer, weights)
        ctx.columns = columns
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        a, b, scale_a, scale_b, outer, weights = ctx.saved_tensors
        weighed = _outer(a, b, scale_a, scale_b, gradient)  # (D, D')
        needed = ctx.needs_input_grad
        of_a = _gradient(b, outer.T, weighed.T, scale_b, scale_a, gradient, ctx.columns, weights) if needed[0] else None
        of_b = _gradient(a, outer, weighed, scale_a, scale_b, gradient, ctx.columns, weights) if needed[1] else None
        return of_a, of_b, None, None, None, None


def _chunks(*tensors: Tensor) -> Any:
    return zip(*(tensor.split(CHUNK) for tensor in tensors), strict=True)  # type: ignore[no-untyped-call]


def _outer(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, weights: Tensor | None) -> Tensor:
    """``sum_j v_j a_j b_j^T``, (D, D')."""
    total = a.new_zeros(a.shape[1], b.shape[1])
    factors = b.new_ones(len(b)) if weights is None else weights
    for own, other, factor in _chunks(a, b, factors):
        total.addmm_((own * scale_a).T, other * (scale_b * factor)[:, None])
    return total


def _gradient(
    other: Tensor,
    outer: Tensor,
    weighed: Tensor,
    scale_other: Tensor,
    scale_own: Tensor,
    gradient: Tensor,
    columns: slice,
    weights: Tensor | None,
) -> Tensor:
    """With respect to one of the two: as row i with its own share of the gradient, and as column j with v_j."""
    result = other.new_empty(len(other), outer.shape[1])
    factors = other.new_zeros(len(other))
    factors[columns] = 1.0 if weights is None else weights
    for rows, own, of_row, factor in _chunks(other, result, gradient, factors):
        scaled = rows * scale_other
        torch.mm(scaled * of_row[:, None], outer, out=own)
        own.addmm_(scaled * factor[:, None], weighed).mul_(scale_own)
    return result
