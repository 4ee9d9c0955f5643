"""Maximum mean discrepancy: how far two sets of features are from one distribution, whatever row belongs to which.

Source: joint adaptation (JAN, ICML 2017, arXiv:1605.06636), as the released code of TGRS-MSHNet computes it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustmm.errors import ShapeError
from robustmm.losses.precision import full_precision

#: Least mean distance, so that equal rows give 0 and not 0 / 0.
_MIN_BANDWIDTH = 1e-8
#: Divisor of the squared distances of predictions in the released code of joint adaptation.
PREDICTION_BANDWIDTH = 1.68


def maximum_mean_discrepancy(source: Tensor, target: Tensor, *, num_kernels: int = 5, factor: float = 2.0) -> Tensor:
    """Squared discrepancy under a sum of Gaussian kernels, biased estimate (diagonals included).

    The middle bandwidth is the mean squared distance of all rows, without gradient, so the value does not change when
    all features are multiplied by one number; the others are ``factor`` times wider or narrower each.

    Args:
        source: Features, (R, D).
        target: Features, (R', D). Both receive a gradient; detach a teacher.
        num_kernels: Kernels, which are added and not averaged.
        factor: Ratio of neighbouring bandwidths.

    Returns:
        Scalar, from 0 (up to rounding) to 2 ``num_kernels``; 0 with gradient 0 for fewer than two rows on a side, whose
        distance is their own bandwidth and tells nothing. At least float32.

    Raises:
        ShapeError: The features are not matrices, or differ in D.
    """
    _check("maximum_mean_discrepancy", source, target)
    with full_precision(source, target) as (source, target):
        if min(len(source), len(target)) < 2:
            return _zero(source, target)
        return _discrepancy(_gaussians(_distances(source, target), num_kernels, factor), len(source))


def joint_maximum_mean_discrepancy(
    source: Tensor,
    target: Tensor,
    source_probability: Tensor,
    target_probability: Tensor,
    *,
    num_kernels: int = 5,
    factor: float = 2.0,
    prediction_bandwidth: float = PREDICTION_BANDWIDTH,
) -> Tensor:
    """The same for features and predictions together: the kernel is the product of one for each.

    Args:
        source: Features, (R, D).
        target: Features, (R', D).
        source_probability: Predictions of the same rows, (R, K), such as class probabilities.
        target_probability: (R', K).
        num_kernels: Kernels on features, which are added.
        factor: Ratio of neighbouring bandwidths.
        prediction_bandwidth: Divides the squared distances of predictions in their single Gaussian kernel.

    Returns:
        Scalar, from 0 (up to rounding) to 2 ``num_kernels``; 0 with gradient 0 for fewer than two rows on a side. At
        least float32.

    Raises:
        ShapeError: Something is not a matrix, or rows or columns do not fit.
    """
    _check("joint_maximum_mean_discrepancy", source, target)
    _check("joint_maximum_mean_discrepancy", source_probability, target_probability)
    if len(source) != len(source_probability) or len(target) != len(target_probability):
        raise ShapeError(
            f"joint_maximum_mean_discrepancy: features have {len(source)} and {len(target)} rows, predictions "
            f"{len(source_probability)} and {len(target_probability)}; they must agree"
        )
    tensors = (source, target, source_probability, target_probability)
    with full_precision(*tensors) as (source, target, source_probability, target_probability):
        if min(len(source), len(target)) < 2:
            return _zero(source, target, source_probability, target_probability)
        kernel = _gaussians(_distances(source, target), num_kernels, factor)
        on_predictions = (-_distances(source_probability, target_probability) / prediction_bandwidth).exp()
        return _discrepancy(kernel * on_predictions, len(source))


def _distances(source: Tensor, target: Tensor) -> Tensor:
    """Squared distances of all rows of both, (N, N), without an N x N x D tensor."""
    rows = torch.cat([source, target])
    rows = rows - rows.detach().mean(dim=0)  # a distance ignores the origin, the digits of its squares do not
    squares = rows.square().sum(dim=1)
    distances = (squares[:, None] + squares - 2 * rows @ rows.T).clamp_min(0)
    return distances.masked_fill(torch.eye(len(rows), dtype=torch.bool, device=rows.device), 0.0)


def _gaussians(distances: Tensor, num_kernels: int, factor: float) -> Tensor:
    count = len(distances)
    middle = (distances.detach().sum() / (count**2 - count)).clamp_min(_MIN_BANDWIDTH)
    kernel = torch.zeros_like(distances)
    for step in range(num_kernels):
        kernel = kernel + (-distances / (middle * factor ** (step - num_kernels // 2))).exp()
    return kernel


def _discrepancy(kernel: Tensor, rows: int) -> Tensor:
    """Mean similarity within source and within target, minus twice that between them."""
    return kernel[:rows, :rows].mean() + kernel[rows:, rows:].mean() - 2 * kernel[:rows, rows:].mean()


def _zero(*tensors: Tensor) -> Tensor:
    """0 that hangs on the inputs, so that a backward pass finds its way, but not on their values."""
    return torch.stack([tensor[:0].sum() for tensor in tensors]).sum()


def _check(name: str, source: Tensor, target: Tensor) -> None:
    if source.ndim != 2 or target.ndim != 2 or source.shape[1] != target.shape[1]:
        given = f"{tuple(source.shape)} and {tuple(target.shape)}"
        raise ShapeError(f"{name}: source and target are {given}; they must be (R, D) and (R', D)")
