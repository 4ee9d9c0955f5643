"""Errors and correlation of predicted quantities, from moments that are merged batch by batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Values whose deviation is below this share of their mean's size are one and the same: float32 cannot tell them apart.
CONSTANT_SHARE = 1e-9


class PairMoments(NamedTuple):
    """Moments of pairs of prediction and target.

    Args:
        samples: How many.
        mean: Of predictions and of targets, (2, T) float64.
        products: Sums of products of the centred values, prediction by prediction, target by target, and prediction by
            target, (3, T) float64.
    """

    samples: int
    mean: Tensor
    products: Tensor


def pair_moments(prediction: Tensor, target: Tensor) -> PairMoments:
    """Moments of a batch, (B, T) float64 each; all zero for an empty one."""
    pairs = torch.stack([prediction, target])  # (2, B, T)
    mean = pairs.sum(dim=1) / max(len(target), 1)
    centred = pairs - mean[:, None]
    ours, theirs = centred
    return PairMoments(len(target), mean, torch.stack([ours * ours, theirs * theirs, ours * theirs]).sum(dim=1))


def merge_moments(first: PairMoments, second: PairMoments) -> PairMoments:
    """Moments of both together.

    Source:
        T. Chan, G. Golub and R. LeVeque, 1979: exact, and without the cancellation of plain sums of squares.
    """
    count = first.samples + second.samples
    if count == 0:
        return first
    step = second.mean - first.mean
    share = second.samples / count
    added = torch.stack([step[0] ** 2, step[1] ** 2, step[0] * step[1]]) * (first.samples * share)
    return PairMoments(count, first.mean + step * share, first.products + second.products + added)


def correlation(moments: PairMoments) -> Tensor:
    """Pearson's correlation of prediction and target, (T,) in [-1, 1]; NaN where one of them is constant."""
    spread = moments.products[:2]
    constant = spread <= moments.samples * (CONSTANT_SHARE * moments.mean).square()
    value = (moments.products[2] / spread.prod(dim=0).sqrt()).clamp(-1, 1)
    return value.masked_fill(constant.any(dim=0), torch.nan)
