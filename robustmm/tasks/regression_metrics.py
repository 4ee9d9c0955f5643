"""What is counted for regression."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from robustmm.losses.student_t import split_student_t, student_t_nll
from robustmm.metrics.regression import correlation, merge_moments, pair_moments
from robustmm.tasks.task import Metrics

#: Predictions that lie within this share of the targets' range are a constant.
CONSTANT_RANGE = 1e-3


class RegressionMetrics(Metrics):
    """Errors, correlation and likelihood, each by target quantity and then averaged over the quantities.

    Sums are kept in float64 and in standardised units, about the mean of the training targets, so that they are exact
    for targets of any size; scores are in the targets' own unit.

    Args:
        mean: Of the training targets, (T,).
        deviation: Likewise.
    """

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        self.deviation = deviation.detach().cpu().double()
        self.mean = mean.detach().cpu().double()
        nothing = torch.zeros(0, len(self.mean), dtype=torch.float64)
        self.count = 0
        self._moments = pair_moments(nothing, nothing)
        self._errors = torch.zeros(2, len(self.mean), dtype=torch.float64)  # absolute, squared
        self._low = torch.full((2, len(self.mean)), math.inf, dtype=torch.float64)  # of predictions and targets
        self._high = -self._low
        self._nll = torch.zeros(len(self.mean), dtype=torch.float64)
        self._with_nll = 0

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch: (B, T) or (B, 3T), see `RegressionTask`, and (B,) or (B, T).

        Raises:
            ShapeError: the logits are neither.
        """
        if not len(target):
            return
        logits, target = logits.detach().cpu().double(), target.detach().cpu().double()
        target = (target.reshape(len(target), -1) - self.mean) / self.deviation
        distribution = split_student_t(logits, len(self.mean))
        prediction = logits if distribution is None else distribution.location
        errors = (prediction - target).abs()
        pairs = torch.stack([prediction, target])  # (2, B, T)
        self.count += len(target)
        self._moments = merge_moments(self._moments, pair_moments(prediction, target))
        self._errors = self._errors + torch.stack([errors.sum(dim=0), errors.square().sum(dim=0)])
        self._low, self._high = self._low.minimum(pairs.amin(dim=1)), self._high.maximum(pairs.amax(dim=1))
        if distribution is not None:
            self._nll = self._nll + student_t_nll(distribution, target).sum(dim=0)
            self._with_nll += len(target)

    def merge(self, other: Metrics) -> None:
        """Add what another process counted."""
        other = cast(RegressionMetrics, other)
        self.count += other.count
        self._moments = merge_moments(self._moments, other._moments)
        self._errors = self._errors + other._errors
        self._low, self._high = self._low.minimum(other._low), self._high.maximum(other._high)
        self._nll = self._nll + other._nll
        self._with_nll += other._with_nll

    @property
    def degenerate(self) -> bool:
        """Every quantity is predicted by a constant while the truth varies, or a prediction is not finite."""
        if not self.count:
            return False
        predicted, true = self._high - self._low
        if not bool(self._errors.isfinite().all()):
            return True
        return bool((predicted <= CONSTANT_RANGE * true).all() and (true > 0).any())

    def compute(self) -> dict[str, float | None]:
        """Scores by name; None without samples or where the predictions are not finite.

        ``mae`` and ``rmse`` are in the targets' unit; ``correlation`` is Pearson's, over the quantities of which
        neither truth nor prediction is constant, and None where there is none; ``nll`` is in nats per value, of the
        density in the targets' unit, and None unless all logits came with a distribution.
        """
        absolute, squared = self._errors / max(self.count, 1)
        known = correlation(self._moments)
        known = known[~known.isnan()]
        complete = 0 < self.count == self._with_nll
        nll = self._nll / max(self._with_nll, 1) + self.deviation.log()  # of a density that is wider by the deviation
        return {
            "mae": _mean(self.deviation * absolute, self.count > 0),
            "rmse": _mean(self.deviation * squared.sqrt(), self.count > 0),
            "correlation": _mean(known, len(known) > 0),
            "nll": _mean(nll, complete),
        }


def _mean(values: Tensor, known: bool) -> float | None:
    """Mean over quantities; None where it is not known or not finite."""
    mean = float(values.mean()) if known else math.nan
    return mean if math.isfinite(mean) else None
