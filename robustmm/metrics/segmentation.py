"""Segmentation scores from one confusion matrix (C, C + 1) over the valid pixels of a whole split.

Void pixels are left out when the matrix is counted. A pixel whose prediction is no class enlarges the union of its
true class, so it is as wrong as any other mistake.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from robustmm.metrics.classification import accuracy, f1_per_class, macro_accuracy
from robustmm.metrics.confusion import hits, mean_or_none, predicted_counts, true_counts

#: ``zero``: mean over all C classes, one that neither truth nor prediction has counts as 0 (ESANet and its followers).
#: ``skip``: mean over the classes that the truth has.
Absent = Literal["zero", "skip"]


def iou_per_class(confusion: Tensor) -> Tensor:
    """Intersection over union of each class, (C,) float64; NaN for a class neither in the truth nor predicted."""
    intersection = hits(confusion)
    return intersection / (true_counts(confusion) + predicted_counts(confusion) - intersection)


def mean_iou(confusion: Tensor, *, absent: Absent = "zero") -> float | None:
    """Mean intersection over union, 0..1; None without pixels.

    Args:
        confusion: (C, C + 1) counts.
        absent: What a class does that the truth lacks; see `Absent`.

    Source:
        The ``zero`` rule is that of TUI-NICR/ESANet, used by MMANet and DMRNet for NYUv2.
    """
    return _mean(iou_per_class(confusion), confusion, absent)


def dice_per_class(confusion: Tensor) -> Tensor:
    """Dice coefficient of each class, which is its F1, (C,) float64; NaN for a class neither in truth nor predicted."""
    return f1_per_class(confusion)


def mean_dice(confusion: Tensor, *, absent: Absent = "zero") -> float | None:
    """Mean Dice coefficient, 0..1; None without pixels. ``absent`` as in `mean_iou`."""
    return _mean(dice_per_class(confusion), confusion, absent)


def pixel_accuracy(confusion: Tensor) -> float | None:
    """Share of valid pixels that are right, 0..1; None without pixels."""
    return accuracy(confusion)


def mean_accuracy(confusion: Tensor) -> float | None:
    """Mean share of each true class's pixels that are right, 0..1; None without pixels."""
    return macro_accuracy(confusion)


def _mean(per_class: Tensor, confusion: Tensor, absent: Absent) -> float | None:
    in_truth = true_counts(confusion) > 0
    if not in_truth.any():
        return None
    return mean_or_none(per_class.nan_to_num(0.0) if absent == "zero" else per_class[in_truth])
