"""Products of similarity matrices without the matrices: value, gradient, chunks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robustmm.losses import similarity_product as module
from robustmm.losses.similarity_product import similarity_product

ONE = torch.ones((), dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def explicit(a: Tensor, b: Tensor, columns: slice, weights: Tensor | None) -> Tensor:
    products = (a @ a[columns].T) * (b @ b[columns].T)
    return products.sum(dim=1) if weights is None else products @ weights


@pytest.mark.parametrize("chunk", [2, 1024])
@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("columns", [slice(None), slice(3), slice(3, None)])
def test_similarity_product__equals_the_explicit_matrices(
    monkeypatch: pytest.MonkeyPatch, chunk: int, weighed: bool, columns: slice
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    a, b = normal(7, 3).requires_grad_(), normal(7, 4, seed=1).requires_grad_()
    weights = normal(len(a[columns]), seed=2) if weighed else None
    direction = normal(7, seed=3)
    ours = similarity_product(a, b, ONE, ONE, columns, weights)
    theirs = explicit(a, b, columns, weights)
    torch.testing.assert_close(ours, theirs)
    for own, other in zip(
        torch.autograd.grad(ours @ direction, (a, b)), torch.autograd.grad(theirs @ direction, (a, b)), strict=True
    ):
        torch.testing.assert_close(own, other)


def test_similarity_product__of_features_with_themselves_has_both_parts_of_the_gradient() -> None:
    a = normal(5, 3).requires_grad_()
    torch.autograd.gradcheck(lambda x: similarity_product(x, x, 2 * ONE, 2 * ONE, slice(None), None), a)


def test_similarity_product__scales_before_it_multiplies() -> None:
    a = torch.full((3, 2), 1e20)
    small = torch.tensor(1e-20)
    torch.testing.assert_close(similarity_product(a, a, small, small, slice(None), None), torch.full((3,), 12.0))
