"""Scores of an order: whether positives rank above negatives, and whether confidence ranks right above wrong.

These need every row of the split at once. Scores that are NaN rank as badly as possible, never as a lucky tie.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from robustmm.errors import ShapeError
from robustmm.metrics.confusion import mean_or_none


def auroc(score: Tensor, positive: Tensor) -> float | None:
    """Probability that a random positive scores above a random negative; a tie counts one half.

    Args:
        score: (R,), higher = more positive; any scale. NaN counts as the worst score for its row.
        positive: (R,) bool.

    Returns:
        0..1, 0.5 for constant scores; None if there is no positive or no negative.

    Raises:
        ShapeError: The shapes are not both (R,).
    """
    _check("auroc", "score and positive", score, positive)
    return mean_or_none(_auroc_per_column(score[:, None], positive[:, None].bool()))


def auroc_per_class(scores: Tensor, target: Tensor) -> Tensor:
    """Area under the ROC curve of each class against the rest.

    Args:
        scores: (R, C), logits or probabilities; within a column only the order counts, so the two give different
            values (use probabilities to compare with scikit-learn).
        target: (R,) true classes, 0..C-1.

    Returns:
        (C,) float64; NaN for a class that the truth lacks, or that is the only one.

    Raises:
        ShapeError: The shapes are not (R, C) and (R,).
    """
    if scores.ndim != 2 or target.shape != scores.shape[:1]:
        given = f"{tuple(scores.shape)} and {tuple(target.shape)}"
        raise ShapeError(f"auroc_per_class: scores and target are {given}; they must be (R, C) and (R,)")
    classes = torch.arange(scores.shape[1], device=target.device)
    return _auroc_per_column(scores, target[:, None] == classes)


def macro_auroc(scores: Tensor, target: Tensor) -> float | None:
    """Mean of `auroc_per_class` over the classes where it has a meaning; None if there is none."""
    return mean_or_none(auroc_per_class(scores, target))


def aurc(confidence: Tensor, correct: Tensor) -> float | None:
    """Area under the risk-coverage curve: mean error rate of the k most confident rows, over k = 1..R.

    Rows of equal confidence enter in random order; the value is the expectation over it, so it does not depend on the
    order of the rows.

    Args:
        confidence: (R,), higher = surer; any scale. NaN counts as surest if wrong and least sure if right.
        correct: (R,) bool.

    Returns:
        0..1, 0 if everything is right; None without rows.

    Raises:
        ShapeError: The shapes are not both (R,).

    Source:
        Geifman et al. (ICLR 2019, arXiv:1805.08206).
    """
    _check("aurc", "confidence and correct", confidence, correct)
    if not len(confidence):
        return None
    correct = correct.bool()
    ordered, order = _worst_for_nan(confidence, correct).neg().sort()  # surest first
    errors_before = F.pad((~correct)[order].double().cumsum(dim=0), (1, 0))  # (R + 1,)
    # Within a group of ties each row carries the group's mean error: what it adds on average over all orders.
    first, end = torch.searchsorted(ordered, ordered), torch.searchsorted(ordered, ordered, right=True)
    expected = (errors_before[end] - errors_before[first]) / (end - first)
    covered = torch.arange(1, len(expected) + 1, device=expected.device)
    return float((expected.cumsum(dim=0) / covered).mean())


def _auroc_per_column(scores: Tensor, positive: Tensor) -> Tensor:
    """Mann-Whitney statistic of each column, (C,) float64, from mid-ranks; scores and positive are (R, C)."""
    columns = _worst_for_nan(scores, positive).T.contiguous()  # (C, R)
    ordered = columns.sort(dim=1).values
    below = torch.searchsorted(ordered, columns)
    not_above = torch.searchsorted(ordered, columns, right=True)
    rank = (below + not_above + 1).double() / 2  # 1-based, ties share their mean
    positives = positive.sum(dim=0).double()
    negatives = len(positive) - positives
    above = (rank * positive.T).sum(dim=1) - positives * (positives + 1) / 2
    return above / (positives * negatives)  # 0 / 0 = NaN without positives or negatives


def _worst_for_nan(score: Tensor, good: Tensor) -> Tensor:
    """Replace NaN by the value that hurts: lowest where a row should rank high, highest where it should rank low."""
    score = score.to(torch.promote_types(score.dtype, torch.float32))
    worst = torch.where(good, -math.inf, math.inf).to(score.dtype)
    return torch.where(score.isnan(), worst, score)


def _check(name: str, what: str, first: Tensor, second: Tensor) -> None:
    if first.ndim != 1 or first.shape != second.shape:
        given = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ShapeError(f"{name}: {what} are {given}; both must be (R,)")
