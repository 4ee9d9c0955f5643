"""KL divergence of a diagonal Gaussian from the standard normal."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from robustmm.errors import ShapeError
from robustmm.losses.precision import full_precision


def gaussian_kl(mu: Tensor, log_var: Tensor, *, positions: Literal["mean", "sum"] = "mean") -> Tensor:
    """KL divergence of N(mu, exp(log_var)) from the standard normal, one value per sample.

    Summed over channels. With the default the positions of a map are averaged, so the weight of the term keeps its
    meaning at any image size.

    Args:
        mu: Means, (B, D), or (B, D, ...) with any number of position axes, such as (B, D, H, W).
        log_var: Natural log of the variances, same shape.
        positions: Reduction over the positions of a map; without effect on vectors. ``sum`` is what the released
            face anti-spoofing code of DMRNet does (4 x 4 positions, so its weight counts 16 times as much).

    Returns:
        Nats per sample, (B,), at least 0; 0 for mu = 0 and log_var = 0. At least float32.

    Raises:
        ShapeError: The two shapes differ, or there is no channel axis.

    Source:
        DMRNet (ECCV 2024, arXiv:2407.04458). The released segmentation code detaches this term; here it has a gradient.
    """
    if mu.shape != log_var.shape or mu.ndim < 2:
        given = f"{tuple(mu.shape)} and {tuple(log_var.shape)}"
        raise ShapeError(f"gaussian_kl: mu and log_var are {given}; they must share one shape (B, D, ...)")
    with full_precision(mu, log_var) as (mu, log_var):
        # expm1 keeps the digits that exp(log_var) - 1 loses near log_var = 0.
        per_dimension = 0.5 * (log_var.expm1() - log_var + mu.square())
        per_position = per_dimension.sum(dim=1).reshape(len(mu), -1)  # (B, positions)
        return per_position.mean(dim=1) if positions == "mean" else per_position.sum(dim=1)
