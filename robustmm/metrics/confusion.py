"""The confusion matrix that classification, segmentation and spoofing scores are divided from.

It has one row per true class and one column per predicted class, plus a last column for predictions that are no class
because the logits were not finite: (C, C + 1) int64. Counts of parts add up to the counts of the whole, so batches and
processes are merged by a sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustmm.errors import DataError, ShapeError


def predicted_class(logits: Tensor) -> Tensor:
    """The class with the largest logit, or -1 where a logit is NaN or infinite.

    Args:
        logits: (R, C) or (B, C, ...), classes on axis 1.

    Returns:
        int64, the shape without axis 1.
    """
    # On maps of many classes max takes half the time of argmax, and the sum of a finite row is finite: it holds up to
    # float32's largest number, so that one pass without a copy finds what is not.
    total = logits.sum(dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))
    return logits.max(dim=1).indices.masked_fill(~total.isfinite(), -1)


def confusion_matrix(
    prediction: Tensor, target: Tensor, num_classes: int, *, ignore_index: int | None = None
) -> Tensor:
    """Count predictions by true and predicted class.

    Args:
        prediction: Class indices of any shape; whatever is outside 0..C-1, such as -1, is counted as no class.
        target: True classes, same shape, 0..C-1 or ``ignore_index``.
        num_classes: C.
        ignore_index: Label of rows that are not counted, for void pixels.

    Returns:
        (C, C + 1) int64 on the device of ``target``; rows = truth, last column = no class.

    Raises:
        ShapeError: The shapes differ.
        DataError: A label is neither a class nor ``ignore_index``.
    """
    if prediction.shape != target.shape:
        given = f"{tuple(prediction.shape)} and {tuple(target.shape)}"
        raise ShapeError(f"confusion_matrix: prediction and target are {given}; they must share one shape")
    prediction, target = prediction.reshape(-1).long(), target.reshape(-1).long()
    if ignore_index is not None:
        counted = target != ignore_index
        prediction, target = prediction[counted], target[counted]
    _check_labels(target, num_classes, ignore_index)
    column = torch.where((prediction >= 0) & (prediction < num_classes), prediction, num_classes)
    cell = target * (num_classes + 1) + column
    return cell.bincount(minlength=num_classes * (num_classes + 1)).reshape(num_classes, num_classes + 1)


def hits(confusion: Tensor) -> Tensor:
    """Right predictions of each class, (C,) float64 on the CPU."""
    return _checked(confusion).diagonal()


def true_counts(confusion: Tensor) -> Tensor:
    """Samples or pixels of each true class, (C,) float64 on the CPU; predictions that are no class included."""
    return _checked(confusion).sum(dim=1)


def predicted_counts(confusion: Tensor) -> Tensor:
    """How often each class was predicted, (C,) float64 on the CPU."""
    return _checked(confusion)[:, :-1].sum(dim=0)


def mean_or_none(values: Tensor) -> float | None:
    """Mean of the values that are not NaN, or None if there is none."""
    known = values[~values.isnan()]
    return known.mean().item() if len(known) else None


def _checked(confusion: Tensor) -> Tensor:
    """The counts, ready to be divided. float64 holds every count up to 2^53; ratios are taken once, on the CPU."""
    if confusion.ndim != 2 or confusion.shape[1] != confusion.shape[0] + 1:
        raise ShapeError(f"a confusion matrix is (C, C + 1), the last column for invalid; got {tuple(confusion.shape)}")
    return confusion.cpu().double()


def _check_labels(target: Tensor, num_classes: int, ignore_index: int | None) -> None:
    if not target.numel():
        return
    lowest, highest = (int(value) for value in target.aminmax())
    if lowest < 0 or highest >= num_classes:
        wrong = lowest if lowest < 0 else highest
        ignored = "" if ignore_index is None else f" or the ignored label {ignore_index}"
        raise DataError(f"label {wrong} is not a class: labels must be 0..{num_classes - 1}{ignored}")
