"""Class weights of a dense loss, from how often each class occurs in the training labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustmm.errors import DataError

#: Added to a class's share before the logarithm: bounds the weight of a class that never occurs by 50.5.
LOG_OFFSET = 1.02


@dataclass(frozen=True)
class PixelCounts:
    """How often classes occur.

    Args:
        pixels: Pixels of each class, (C,) int64.
        around: Pixels, void ones among them, of the label maps in which each class occurs, (C,) int64.
    """

    pixels: Tensor
    around: Tensor


def count_pixels(targets: Iterable[Tensor], num_classes: int, *, ignore_index: int) -> PixelCounts:
    """Go through label maps one by one.

    Args:
        targets: Label maps (H, W) int64, of any sizes.
        num_classes: C.
        ignore_index: Label of void pixels.

    Raises:
        DataError: a label is neither a class nor void.
    """
    pixels, around = torch.zeros(2, num_classes, dtype=torch.int64)
    for place, target in enumerate(targets):
        labels = target.flatten()
        counts = checked_labels(labels, num_classes, ignore_index, f"training label map {place}").bincount(
            minlength=num_classes
        )
        pixels += counts
        around += (counts > 0) * len(labels)
    return PixelCounts(pixels, around)


def checked_labels(target: Tensor, num_classes: int, ignore_index: int, place: str) -> Tensor:
    """The labels of valid pixels, (R,).

    Raises:
        DataError: a label is neither a class nor void; names it, ``place`` and what is accepted.
    """
    labels = target[target != ignore_index]
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise DataError(
            f"{place}: label {int(wrong[0])} is not a class: labels must be 0..{num_classes - 1}, or {ignore_index} "
            f"for void"
        )
    return labels


def median_frequency(counts: PixelCounts) -> Tensor:
    """Median of the classes' frequencies over each class's own, (C,) float32.

    A class's frequency is its share of the pixels of the label maps in which it occurs. A class that never occurs has
    none: it is left out of the median and has weight 1, that of the median class.

    Source:
        D. Eigen and R. Fergus, ICCV 2015, arXiv:1411.4734, with pixels counted as in TUI-NICR/ESANet, which refuses
        training labels that lack a class.
    """
    frequency = counts.pixels.double() / counts.around
    occurs = ~frequency.isnan()
    if not occurs.any():
        return torch.ones(len(frequency))
    median = frequency[occurs].quantile(0.5)  # of an even number the mean of the middle two, as NumPy has it
    return torch.where(occurs, median / frequency, 1.0).float()


def log_frequency(counts: PixelCounts) -> Tensor:
    """``1 / ln(1.02 + share of the valid pixels)``, (C,) float32; about 50.5 for a class that never occurs.

    Source:
        A. Paszke et al., ENet, arXiv:1606.02147; ESANet's ``logarithmic``.
    """
    share = counts.pixels.double() / counts.pixels.sum().clamp_min(1)
    return (1 / (LOG_OFFSET + share).log()).float()
