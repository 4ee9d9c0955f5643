"""Student's t as a predictive distribution: how it lies in logits, and its negative log-likelihood."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from robustmm.errors import ShapeError
from robustmm.losses.precision import full_precision

#: From so many degrees of freedom on the ratio of gamma functions is taken from its series, which is exact to float32
#: there, while the difference of two large logarithms is not.
SERIES_FROM = 30.0
#: More degrees of freedom, exp(20), cannot be told from a normal distribution and would overflow at last.
LARGEST_LOG_DF = 20.0


class StudentT(NamedTuple):
    """Parameters of T independent Student-t distributions per sample.

    Args:
        location: Mode, and mean where it exists, (B, T).
        log_scale: Natural log of the scale, (B, T).
        log_df: Natural log of the degrees of freedom, (B, T).
    """

    location: Tensor
    log_scale: Tensor
    log_df: Tensor


def pack_student_t(distribution: StudentT) -> Tensor:
    """Three (B, T) side by side as logits, (B, 3T): T locations, T log scales, T log degrees of freedom."""
    return torch.cat(distribution, dim=1)


def split_student_t(logits: Tensor, num_targets: int) -> StudentT | None:
    """The inverse of `pack_student_t`.

    Args:
        logits: (B, T) or (B, 3T).
        num_targets: T.

    Returns:
        None for (B, T), which are locations alone.

    Raises:
        ShapeError: the logits are neither.
    """
    if logits.shape[1:] == (num_targets,):
        return None
    if logits.shape[1:] != (3 * num_targets,):
        raise ShapeError(
            f"logits of {num_targets} target quantities are (B, {num_targets}), or (B, {3 * num_targets}) of a "
            f"Student-t, got {tuple(logits.shape)}"
        )
    return StudentT(*logits.view(logits.shape[0], 3, num_targets).unbind(dim=1))


def student_t_nll(distribution: StudentT, target: Tensor) -> Tensor:
    """Negative log-likelihood of each value.

    Args:
        distribution: Each parameter (B, T).
        target: (B, T), in the unit of the location.

    Returns:
        Nats, (B, T), in float32 or, where an argument is, in float64.

    Source:
        Standard. ``lgamma(x + 1/2) - lgamma(x) = log(x) / 2 - 1 / (8 x) + 1 / (192 x**3) - ...`` for large x is
        from the asymptotic series of the gamma function.
    """
    with full_precision(*distribution, target) as (location, log_scale, log_df, target):
        log_df = log_df.clamp_max(LARGEST_LOG_DF)
        df = log_df.exp()
        error = (target - location) * (-log_scale).exp()
        normaliser = 0.5 * (math.log(math.pi) + log_df) + log_scale - _log_gamma_ratio(df / 2)
        return normaliser + (df + 1) / 2 * torch.log1p(error.square() / df)


def _log_gamma_ratio(x: Tensor) -> Tensor:
    """``lgamma(x + 1/2) - lgamma(x)``."""
    large = x >= SERIES_FROM / 2
    # Each form is only given what it holds for: a gradient that is not finite would spoil the other through `where`.
    few, many = x.masked_fill(large, 1.0), x.masked_fill(~large, SERIES_FROM)
    series = many.log() / 2 - 1 / (8 * many) + 1 / (192 * many**3)
    return torch.where(large, series, torch.lgamma(few + 0.5) - torch.lgamma(few))
