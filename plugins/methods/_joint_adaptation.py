"""Transfer from a teacher: features compared as sets, predictions row by row."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from robustmm import maximum_mean_discrepancy

Divergence = Callable[[Tensor, Tensor], Tensor]


def joint_adaptation(
    features: tuple[Tensor, Tensor],
    predictions: tuple[Tensor, Tensor],
    divergence: Divergence,
    *,
    mmd_weight: float,
    kl_weight: float,
    num_kernels: int = 5,
) -> Tensor:
    """How far features and predictions are from the teacher's: P(X, Y) by way of P(X) and P(Y | X).

    Args:
        features: Of student and teacher, (R, D) each, compared as sets.
        predictions: Likewise, (R', C) each, compared row by row.
        divergence: Of the student's predictions from the teacher's, a scalar.
        mmd_weight: Of the discrepancy of features.
        kl_weight: Of the divergence of predictions.
        num_kernels: See `maximum_mean_discrepancy`.

    Returns:
        Scalar; 0 without rows.

    Source:
        TGRS-MSHNet, loss/kd/jda.py: ``JDA``.
    """
    apart = mmd_weight * maximum_mean_discrepancy(features[0], features[1].detach(), num_kernels=num_kernels)
    return apart + kl_weight * divergence(*predictions) if len(predictions[0]) else apart


def rows_of(x: Tensor, keep: Tensor) -> Tensor:
    """The kept samples' vectors: (B, D) -> (R, D); of maps (B, D, H, W) one for each position."""
    return x.movedim(1, -1)[keep].flatten(0, -2)
