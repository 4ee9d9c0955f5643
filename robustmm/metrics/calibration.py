"""Whether probabilities mean what they say: calibration error, Brier score, negative log-likelihood.

Bins are sums, so the bins of batches and of processes add up to those of the whole split.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from robustmm.errors import ShapeError


def calibration_bins(probabilities: Tensor, target: Tensor, *, num_bins: int = 15) -> Tensor:
    """Sums per bin of the top-class probability; bins have equal width.

    Bin k holds confidences in (k / num_bins, (k + 1) / num_bins]. A row with a probability that is not finite counts
    as fully confident and wrong.

    Args:
        probabilities: (R, C), rows sum to 1.
        target: (R,) true classes.
        num_bins: Number of bins over 0..1.

    Returns:
        (num_bins, 3) float64: rows, sum of confidences, right predictions. float64 is exact for counts up to 2^53.

    Raises:
        ShapeError: The shapes are not (R, C) and (R,).

    Source:
        Guo et al. (ICML 2017, arXiv:1706.04599).
    """
    confidence, correct = _top_class(probabilities, target)
    place = torch.bucketize(confidence, _edges(num_bins, confidence.device))
    return _sum_by_bin(confidence, correct, place, num_bins)


def bins_by_group(confidence: Tensor, correct: Tensor, group: Tensor, groups: int, *, num_bins: int = 15) -> Tensor:
    """The bins of `calibration_bins` for each of several groups of rows, such as the pixels of each map.

    Args:
        confidence: (R,) probability of the top class; one that is not finite counts as fully confident and wrong.
        correct: (R,) bool.
        group: (R,) int64, 0..groups - 1.
        groups: G.
        num_bins: Number of bins over 0..1.

    Returns:
        (G, num_bins, 3) float64.
    """
    finite = confidence.isfinite()
    confidence, correct = confidence.double().masked_fill(~finite, 1.0), correct & finite
    place = group * num_bins + torch.bucketize(confidence, _edges(num_bins, confidence.device))
    return _sum_by_bin(confidence, correct, place, groups * num_bins).view(groups, num_bins, 3)


def equal_mass_bins(probabilities: Tensor, target: Tensor, *, num_bins: int = 15) -> Tensor:
    """Like `calibration_bins`, but with as many rows in each bin (adaptive calibration error).

    Bin limits depend on all rows, so the bins of parts cannot be added.
    """
    confidence, correct = _top_class(probabilities, target)
    position = torch.arange(len(confidence), device=confidence.device)
    bin_of = torch.empty_like(position)
    bin_of[confidence.argsort(stable=True)] = position * num_bins // max(len(confidence), 1)
    return _sum_by_bin(confidence, correct, bin_of, num_bins)


def expected_calibration_error(bins: Tensor) -> float | None:
    """Mean gap between confidence and accuracy, bins weighted by their rows; 0..1, None without rows.

    Args:
        bins: (num_bins, 3) from `calibration_bins` or `equal_mass_bins`.
    """
    rows, confidence, right = bins.unbind(dim=1)
    total = rows.sum().item()
    return (confidence - right).abs().sum().item() / total if total else None


def maximum_calibration_error(bins: Tensor) -> float | None:
    """Largest gap between confidence and accuracy among the bins that have rows; 0..1, None without rows."""
    filled = bins[bins[:, 0] > 0]
    return ((filled[:, 1] - filled[:, 2]).abs() / filled[:, 0]).max().item() if len(filled) else None


def brier_score(probabilities: Tensor, target: Tensor) -> Tensor:
    """Squared distance of the probabilities from the one-hot truth, summed over classes, one value per row.

    Args:
        probabilities: (R, C), rows sum to 1.
        target: (R,) true classes.

    Returns:
        (R,) float64, 0..2; 2, the worst value, where a probability is not finite.

    Raises:
        ShapeError: The shapes are not (R, C) and (R,).
    """
    _check(probabilities, target)
    distance = (probabilities.double() - F.one_hot(target, probabilities.shape[1])).square().sum(dim=1)
    return distance.masked_fill(~distance.isfinite(), 2.0)


def negative_log_likelihood(logits: Tensor, target: Tensor) -> Tensor:
    """Minus the log-probability of the true class, one value per row.

    Taken from logits, where a probability that underflows to 0 still has a finite logarithm.

    Args:
        logits: (R, C).
        target: (R,) true classes.

    Returns:
        Nats, (R,) float64, at least 0; infinite where a logit is NaN.

    Raises:
        ShapeError: The shapes are not (R, C) and (R,).
    """
    _check(logits, target)
    return F.cross_entropy(logits.double(), target, reduction="none").nan_to_num(nan=math.inf, posinf=math.inf)


def _top_class(probabilities: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Confidence (R,) float64 and whether the top class is right, (R,) bool."""
    _check(probabilities, target)
    confidence, predicted = probabilities.double().max(dim=1)
    finite = probabilities.isfinite().all(dim=1)
    return confidence.masked_fill(~finite, 1.0), (predicted == target) & finite


def _edges(num_bins: int, device: torch.device) -> Tensor:
    return torch.linspace(0, 1, num_bins + 1, dtype=torch.float64, device=device)[1:-1]


def _sum_by_bin(confidence: Tensor, correct: Tensor, bin_of: Tensor, num_bins: int) -> Tensor:
    sums = torch.stack([torch.ones_like(confidence), confidence, correct.double()], dim=1)  # (R, 3)
    return sums.new_zeros(num_bins, 3).index_add_(0, bin_of, sums)


def _check(values: Tensor, target: Tensor) -> None:
    if values.ndim != 2 or target.shape != values.shape[:1]:
        given = f"{tuple(values.shape)} and {tuple(target.shape)}"
        raise ShapeError(f"calibration: values and target are {given}; they must be (R, C) and (R,)")
