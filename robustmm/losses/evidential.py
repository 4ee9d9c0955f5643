"""Evidence per class as a Dirichlet distribution: its loss, its uncertainty, and the rule that merges several views.

Evidence e >= 0 of one view gives the distribution Dir(e + 1) over class probabilities, with strength S = sum(e) + K,
belief masses e / S and uncertainty K / S, which sum to 1. Evidence 0 means that the view knows nothing.

Source: TMC (ICLR 2021, arXiv:2102.02051) and its released code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from robustmm.errors import ShapeError
from robustmm.losses.precision import full_precision

#: From here on the series of `_curvature` is exact to 4e-12.
_SERIES_FROM = 32.0


def evidential_loss(evidence: Tensor, target: Tensor, kl_weight: float | Tensor) -> Tensor:
    """Expected cross-entropy of Dir(evidence + 1), plus the KL divergence of its wrong classes from the uniform one.

    The penalty sees the evidence with that of the true class taken out, so it is 0 where only the true class has any.
    Values and gradients keep float32's digits for any evidence, where differences of log-gamma values lose them.

    Args:
        evidence: (R, K), at least 0.
        target: True classes, (R,) of integers in [0, K).
        kl_weight: Factor of the penalty, which TMC raises from 0 to 1: min(1, epoch / annealing epochs), with the
            first epoch counted as 1.

    Returns:
        Nats per row, (R,), at least 0 up to rounding. At least float32.

    Raises:
        ShapeError: The shapes are not (R, K) and (R,).
    """
    if evidence.ndim != 2 or target.shape != evidence.shape[:1]:
        given = f"{tuple(evidence.shape)} and {tuple(target.shape)}"
        raise ShapeError(f"evidential_loss: evidence and target are {given}; they must be (R, K) and (R,)")
    with full_precision(evidence) as (evidence,):
        true_class = target.long()[:, None]
        strength = evidence.sum(dim=1) + evidence.shape[1]
        of_true_class = evidence.gather(1, true_class).squeeze(1) + 1
        cross_entropy = strength.digamma() - of_true_class.digamma()
        return cross_entropy + kl_weight * dirichlet_kl(evidence.scatter(1, true_class, 0.0))


def dirichlet_kl(evidence: Tensor) -> Tensor:
    """KL divergence of Dir(evidence + 1) from the uniform Dir(1), one value per row.

    Args:
        evidence: (R, K), at least 0.

    Returns:
        Nats, (R,), exactly 0 without evidence. At least float32.
    """
    with full_precision(evidence) as (evidence,):
        classes = evidence.new_full((), evidence.shape[1])
        strength = evidence.sum(dim=1) + classes
        # The terms linear in the evidence cancel; left in, they would drown the rest: lgamma(1e6) is 1.3e7.
        spread = _curvature(strength) - _curvature(classes)
        spread = spread + (classes - 1) * (strength.digamma() - classes.digamma())
        return spread - (_curvature(evidence + 1) - 1).sum(dim=1)


def combine_evidence(evidence: Sequence[Tensor] | Tensor) -> Tensor:
    """Merge the evidence of several views with the reduced Dempster rule.

    In evidence the rule is a product, 1 + e / K = prod_v (1 + e_v / K), for each class by itself: no K x K masses and
    no division by 1 - conflict, which is 0 / 0 in float32 for two certain views that contradict each other. It is
    folded as e + e_v + e e_v / K rather than through logarithms, so that a view without evidence changes no bit.

    The merged uncertainty never exceeds that of any view, even if they contradict each other; see `belief_conflict`.

    Args:
        evidence: V views (R, K) or (R, K, ...), or one tensor (V, R, K, ...); at least 0, and 0 where a view is absent.

    Returns:
        Merged evidence, (R, K, ...). At least float32.

    Raises:
        ShapeError: There is no view, or the shapes differ or have no class axis.
    """
    views = _views("combine_evidence", evidence)
    with full_precision(*views) as views:
        merged = views[0]
        for view in views[1:]:
            merged = merged + view + merged * (view / view.shape[1])
        return merged


def dirichlet_uncertainty(evidence: Tensor) -> Tensor:
    """Mass K / S that is committed to no class, (R, ...) from (R, K, ...).

    It lies in (0, 1], 1 without evidence. At least float32.
    """
    with full_precision(evidence) as (evidence,):
        classes = evidence.shape[1]
        return classes / (evidence.sum(dim=1) + classes)


def belief_conflict(evidence: Sequence[Tensor] | Tensor) -> Tensor:
    """Mass that Dempster's rule throws away when all views are merged, because their beliefs contradict each other.

    For two views it is the sum of b1_i b2_j over i != j; for more, 1 - C is the product of the factors 1 - C of every
    step, in any order.

    Args:
        evidence: V views (R, K) or (R, K, ...), or one tensor (V, R, K, ...); at least 0, and 0 where a view is absent.

    Returns:
        In [0, 1), (R, ...); 0 for a single view. A quantity to look at, without gradient. At least float32.

    Raises:
        ShapeError: There is no view, or the shapes differ or have no class axis.
    """
    views = _views("belief_conflict", evidence)
    with torch.no_grad(), full_precision(*views) as views:
        classes = views[0].shape[1]
        # 1 - C = (S / K) prod_v (K / S_v); log1p keeps both sides exact for an absent view.
        log_agreement = _log_strength(combine_evidence(views), classes)
        for view in views:
            log_agreement = log_agreement - _log_strength(view, classes)
        return (-log_agreement.expm1()).clamp_min(0)  # below 0 by rounding alone


def _log_strength(evidence: Tensor, classes: int) -> Tensor:
    return (evidence.sum(dim=1) / classes).log1p()


def _curvature(x: Tensor) -> Tensor:
    """lgamma(x) - (x - 1) digamma(x) + x for x >= 1: what is left of a Dirichlet's entropy beside linear terms."""
    low, high = x.clamp_max(_SERIES_FROM), x.clamp_min(_SERIES_FROM)
    direct = low.lgamma() - (low - 1) * low.digamma() + low
    r = 1 / high
    tail = r * (-1 / 3 + r * (-1 / 12 + r * (-1 / 90 + r * (1 / 120 + r / 210))))
    series = 0.5 * (high.log() + (math.log(2 * math.pi) + 1)) + tail  # Stirling's series of both functions
    return torch.where(x < _SERIES_FROM, direct, series)


def _views(name: str, evidence: Sequence[Tensor] | Tensor) -> tuple[Tensor, ...]:
    views = tuple(evidence)
    if not views or views[0].ndim < 2 or any(view.shape != views[0].shape for view in views):
        given = ", ".join(str(tuple(view.shape)) for view in views) or "none"
        raise ShapeError(f"{name}: the views are {given}; at least one is needed, all of one shape (R, K, ...)")
    return views
