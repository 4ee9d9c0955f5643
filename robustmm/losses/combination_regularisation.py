"""An extra loss on the samples that show a weak or hard combination of modalities.

Source: MMANet (CVPR 2023, arXiv:2304.08028) and DMRNet (ECCV 2024, arXiv:2407.04458).
"""

from __future__ import annotations

from torch import Tensor

from robustmm.errors import ShapeError
from robustmm.losses.precision import full_precision


def masked_mean(per_sample: Tensor, keep: Tensor) -> Tensor:
    """Sum of the kept losses divided by the size of the whole batch: the intended form.

    Dividing by B instead of by the number kept makes a batch with few hard samples weigh little, and an empty
    selection gives 0 with a gradient of exactly 0.

    Args:
        per_sample: Losses, (B,).
        keep: (B,) bool, true for the samples whose combination is weak or hard.

    Returns:
        Scalar, at least float32.

    Raises:
        ShapeError: The shapes are not both (B,).
    """
    _check(per_sample, keep)
    with full_precision(per_sample) as (loss,):
        # masked_fill, not a product: a non-finite loss that was not kept must not reach the sum.
        return loss.masked_fill(~keep, 0.0).sum() / max(len(loss), 1)


def outer_mean(per_sample: Tensor, keep: Tensor) -> Tensor:
    """Mean loss of *all* samples times the number kept: the released form.

    The released classification code multiplies a mask (B, 1, 1, 1) by losses (B,), an outer product. The result is
    (sum of all losses) x (number kept) / B, which singles out no combination and is about B/2 times larger than
    `masked_mean`; weights tuned for one form do not fit the other.

    Args:
        per_sample: Losses, (B,).
        keep: (B,) bool.

    Returns:
        Scalar, at least float32.

    Raises:
        ShapeError: The shapes are not both (B,).
    """
    _check(per_sample, keep)
    with full_precision(per_sample) as (loss,):
        return loss.sum() * keep.sum() / max(len(loss), 1)


def _check(per_sample: Tensor, keep: Tensor) -> None:
    if per_sample.ndim != 1 or per_sample.shape != keep.shape:
        given = f"{tuple(per_sample.shape)} and {tuple(keep.shape)}"
        raise ShapeError(f"combination regularisation: per_sample and keep are {given}; both must be (B,)")
