"""Normal-inverse-gamma distributions for trusted regression: head, summation, uncertainties, losses.

A distribution over the mean and the variance of a target: mean, count (how many observations the mean is worth), shape
and scale of the variance. The papers write gamma or u, nu or l, alpha and beta.

Source: MoNIG (NeurIPS 2021, arXiv:2111.08456) and its released code, after deep evidential regression (NeurIPS 2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from robustmm.errors import ShapeError
from robustmm.losses.precision import full_precision

#: Added to what must be above a bound: softplus is 0 in half precision below -17, and log(1 / count) infinite.
MINIMUM = 1e-6
#: From here on the series of `_log_gamma_half_step` is exact to 5e-12.
_SERIES_FROM = 16.0


class NormalInverseGamma(NamedTuple):
    """One distribution per target; four tensors of one shape, (R,) or (R, ...).

    Attributes:
        mean: The prediction, in the target's unit.
        count: Above 0.
        shape: Above 1, so that the variance has an expected value.
        scale: Above 0, in the target's unit squared.
    """

    mean: Tensor
    count: Tensor  # type: ignore[assignment]  # hides tuple.count, which nobody asks a distribution for
    shape: Tensor
    scale: Tensor

    @classmethod
    def from_raw(cls, outputs: Tensor, *, minimum: float = MINIMUM) -> NormalInverseGamma:
        """The distributions that a head's outputs stand for.

        Args:
            outputs: (R, 4) or (R, 4, ...) in the order mean, count, shape, scale; any size.
            minimum: Least count, least scale and least distance of the shape from 1. The released code has 0, with
                infinite losses where softplus underflows.

        Returns:
            Distributions of shape (R, ...). At least float32.

        Raises:
            ShapeError: There are not 4 outputs.
        """
        if outputs.ndim < 2 or outputs.shape[1] != 4:
            raise ShapeError(f"NormalInverseGamma: outputs are {tuple(outputs.shape)}; they must be (R, 4, ...)")
        with full_precision(outputs) as (outputs,):
            mean, count, shape, scale = outputs.unbind(dim=1)
            count, shape, scale = (F.softplus(raw) + minimum for raw in (count, shape, scale))
            return cls(mean, count, shape + 1, scale)

    @property
    def aleatoric(self) -> Tensor:
        """Expected variance of the noise, in the target's unit squared."""
        return self.scale / (self.shape - 1)

    @property
    def epistemic(self) -> Tensor:
        """Variance of the mean, in the target's unit squared: the aleatoric one divided by the count."""
        return self.aleatoric / self.count

    def student_t(self) -> tuple[Tensor, Tensor, Tensor]:
        """Degrees of freedom, location and scale (a length, not its square) of the distribution of the target."""
        return 2 * self.shape, self.mean, (self.scale * (1 + self.count) / (self.count * self.shape)).sqrt()


def combine_nig(parts: Sequence[NormalInverseGamma], presence: Tensor | None = None) -> NormalInverseGamma:
    """Sum the distributions of several modalities: means weigh by their counts, and their disagreement adds scale.

    Folding two at a time gives the same in any order. Every fold adds 1/2 to the shape, so an absent modality is left
    out of the fold; nothing of its numbers, NaN included, reaches the result or a gradient.

    Args:
        parts: M distributions, one per modality, all of one shape (R, ...).
        presence: (R, M) bool; all present if None.

    Returns:
        Summed distributions, (R, ...). A row without any modality has no distribution: its mean, count and scale are
        0 and its shape -1/2, the neutral element of the sum. At least float32.

    Raises:
        ShapeError: There is no part, or the shapes do not fit.
    """
    if presence is None:
        presence = torch.ones(len(parts[0].mean) if parts else 0, len(parts), dtype=torch.bool)
    shapes = [tuple(field.shape) for part in parts for field in part]
    if not parts or any(one != shapes[0] for one in shapes) or presence.shape != (parts[0].mean.shape[0], len(parts)):
        raise ShapeError(
            f"combine_nig: {len(parts)} parts of {sorted(set(shapes))} and presence {tuple(presence.shape)}; all parts "
            "must be (R, ...) and presence (R, M)"
        )
    with full_precision(*(torch.stack(field, dim=1) for field in zip(*parts, strict=True))) as stacked:
        on = presence.to(stacked[0].device).view(*presence.shape, *[1] * (stacked[0].ndim - 2))  # (R, M, 1, ...)
        mean, count, shape, scale = (field.where(on, torch.zeros_like(field)) for field in stacked)  # (R, M, ...)
        total = count.sum(dim=1)
        # A row of nothing divides by 1, and so has mean 0 and no gradient.
        fused = (count * mean).sum(dim=1) / total.where(on.any(dim=1), torch.ones_like(total))
        disagreement = 0.5 * (count * (mean - fused.unsqueeze(1)).square()).sum(dim=1)
        folds = on.sum(dim=1) - 1
        return NormalInverseGamma(fused, total, shape.sum(dim=1) + 0.5 * folds, scale.sum(dim=1) + disagreement)


def nig_nll(distribution: NormalInverseGamma, target: Tensor) -> Tensor:
    """Negative log-likelihood of the target under the Student-t distribution that a normal-inverse-gamma implies.

    Args:
        distribution: Fields of shape (R, ...).
        target: Same shape.

    Returns:
        Nats per target, same shape; any sign, since it is a density. At least float32.

    Raises:
        ShapeError: The shapes differ.
    """
    _check("nig_nll", distribution, target)
    with full_precision(*distribution, target) as (mean, count, shape, scale, target):
        omega = 2 * scale * (1 + count)
        # shape * log(omega) cancels between the two logarithms of the usual form, and is left out.
        deviation = (count * (target - mean).square() / omega).log1p()
        return 0.5 * (math.pi / count * omega).log() + (shape + 0.5) * deviation - _log_gamma_half_step(shape)


def nig_regulariser(
    distribution: NormalInverseGamma, target: Tensor, *, form: Literal["code", "paper"] = "code"
) -> Tensor:
    """Evidence that stands behind a wrong prediction: absolute error times evidence.

    Args:
        distribution: Fields of shape (R, ...).
        target: Same shape.
        form: ``code`` takes 2 count + shape for the evidence, as the released code and deep evidential regression do;
            ``paper`` takes count + 2 shape.

    Returns:
        In the target's unit, same shape, at least 0; 0 for a right prediction. At least float32.

    Raises:
        ShapeError: The shapes differ.
    """
    _check("nig_regulariser", distribution, target)
    with full_precision(*distribution, target) as (mean, count, shape, _, target):
        evidence = 2 * count + shape if form == "code" else count + 2 * shape
        return (target - mean).abs() * evidence


def _log_gamma_half_step(x: Tensor) -> Tensor:
    """lgamma(x + 1/2) - lgamma(x) for x above 0; the difference of large values would leave float32 no digits."""
    low, high = x.clamp_max(_SERIES_FROM), x.clamp_min(_SERIES_FROM)
    r = 1 / high
    series = 0.5 * high.log() + r * (-1 / 8 + r.square() * (1 / 192 - r.square() / 640))
    return torch.where(x < _SERIES_FROM, (low + 0.5).lgamma() - low.lgamma(), series)


def _check(name: str, distribution: NormalInverseGamma, target: Tensor) -> None:
    if any(field.shape != target.shape for field in distribution):
        given = ", ".join(str(tuple(field.shape)) for field in distribution)
        raise ShapeError(f"{name}: the distribution has {given} and the target {tuple(target.shape)}; they must agree")
