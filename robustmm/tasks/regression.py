"""Numbers instead of classes: one or several quantities of a whole sample."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from robustmm.errors import DataError
from robustmm.losses.precision import full_precision
from robustmm.losses.student_t import split_student_t
from robustmm.tasks.regression_metrics import RegressionMetrics
from robustmm.tasks.task import Direction, Rows, Task

#: Targets that hardly vary are not blown up: deviations below this share of the mean's size count as constant.
CONSTANT_SHARE = 1e-6


class RegressionTask(Task):
    """One number per sample, or several; squared, absolute or Huber error, mean over batch and quantities.

    Targets are float, () per sample for one quantity or (T,) for several, in a unit of their own. The task takes mean
    and deviation of each quantity from the training targets (`fit`) and standardises by them, so that a loss is of unit
    size whatever the unit; predictions (`predict`) and scores are in the targets' unit. Mean and deviation are buffers
    that travel with a method's weights; until they are set, by `fit` or from a checkpoint, they are 0 and 1.

    Logits are in standardised units and have one of two layouts:

    - (B, T): the predicted means.
    - (B, 3T): T locations, T log scales and T logs of the degrees of freedom of a Student-t per quantity, from methods
      that say how sure they are. `pack_student_t` and `split_student_t` go to and fro, `student_t_nll` is the loss of
      such a method; the scale is in standardised units too. The location is the prediction, and the task's own losses
      look at it alone. Scores then hold ``nll``.

    A head has T outputs; a method of the second layout brings what makes the others.

    Args:
        classes: Names of the target quantities.
        loss: ``mse``, ``l1`` or ``huber``.
        huber_delta: Error, in standardised units, from which Huber's loss goes on in a straight line.
    """

    score = "mae"
    directions: dict[str, Direction]
    default_head = "linear"
    dense = False
    needs_targets = True
    continuous = True

    mean: Tensor
    deviation: Tensor
    absolute_deviation: Tensor

    def __init__(
        self, classes: Sequence[str], *, loss: Literal["mse", "l1", "huber"] = "mse", huber_delta: float = 1.0
    ) -> None:
        super().__init__(classes)
        self.form = loss
        self.huber_delta = huber_delta
        self.directions = {"mae": "min", "rmse": "min", "correlation": "max", "nll": "min"}
        self.register_buffer("mean", torch.zeros(self.num_outputs))
        self.register_buffer("deviation", torch.ones(self.num_outputs))
        # Of the targets from their mean: the error of who always predicts that mean.
        self.register_buffer("absolute_deviation", torch.ones(self.num_outputs))

    def fit(self, targets: Iterable[Tensor]) -> None:
        """Take mean and deviation from the training targets; a quantity that does not vary keeps deviation 1.

        Raises:
            DataError: there is no target, or one is not as many finite floats as there are quantities.
        """
        known = [self._checked(target, place) for place, target in enumerate(targets)]
        if not known:
            raise DataError("regression needs at least one training target")
        values = torch.stack(known)  # (N, T)
        mean = values.mean(dim=0)
        deviation = (values - mean).square().mean(dim=0).sqrt()
        constant = deviation <= CONSTANT_SHARE * mean.abs().clamp_min(1e-12)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation.masked_fill(constant, 1.0))
        self.absolute_deviation.copy_((values - mean).abs().mean(dim=0))

    def _checked(self, target: Tensor, place: int) -> Tensor:
        """A training target as (T,) float64."""
        shapes = ((), (1,)) if self.num_outputs == 1 else ((self.num_outputs,),)
        if not target.is_floating_point() or tuple(target.shape) not in shapes:
            raise DataError(
                f"training target {place} is {target.dtype} of shape {tuple(target.shape)}; regression of "
                f"{', '.join(self.classes)} needs floats of shape {' or '.join(map(str, shapes))}"
            )
        if not bool(target.isfinite().all()):
            raise DataError(f"training target {place} is {target.tolist()}; every target must be finite")
        return target.reshape(self.num_outputs).double()

    def standardised(self, target: Tensor) -> Tensor:
        """Targets (B,) or (B, T) in the unit of the logits, (B, T)."""
        return (target.reshape(len(target), self.num_outputs) - self.mean) / self.deviation

    def predict(self, logits: Tensor) -> Tensor:
        """Predictions in the targets' unit, (B, T), from logits of either layout.

        Raises:
            ShapeError: they have neither.
        """
        with full_precision(self._location(logits)) as (location,):
            return self.mean + self.deviation * location

    def _location(self, logits: Tensor) -> Tensor:
        distribution = split_student_t(logits, self.num_outputs)
        return logits if distribution is None else distribution.location

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean over the batch and the quantities, in standardised units."""
        return self.sample_losses(logits, target).mean()

    def sample_losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of each sample, mean over its quantities, (B,)."""
        with full_precision(self._location(logits)) as (location,):
            wanted = self.standardised(target.to(location.dtype))
            if self.form == "mse":
                losses = F.mse_loss(location, wanted, reduction="none")
            elif self.form == "l1":
                losses = F.l1_loss(location, wanted, reduction="none")
            else:
                losses = F.huber_loss(location, wanted, reduction="none", delta=self.huber_delta)
            return losses.mean(dim=1)

    def masked_loss(self, logits: Tensor, target: Tensor, keep: Tensor) -> Tensor:
        """Sum of the kept samples' losses, divided by the batch size and not by their number, as in classification."""
        return self.sample_losses(logits, target).masked_fill(~keep, 0.0).mean()

    def rows(self, logits: Tensor, target: Tensor) -> Rows:
        """Every sample is a row; targets as they are given, in their own unit."""
        return Rows(logits, target, torch.arange(len(target), device=target.device))

    def target_size(self, target: Tensor) -> tuple[int, ...]:
        """(): several quantities are no spatial size."""
        return ()

    def metrics(self) -> RegressionMetrics:
        """Fresh counters."""
        return RegressionMetrics(self.mean, self.deviation)

    def uncertainty(self, logits: Tensor) -> Tensor | None:
        """Mean log scale over the quantities where logits are a Student-t, see `split_student_t`; else None."""
        distribution = split_student_t(logits, self.num_outputs)
        return None if distribution is None else distribution.log_scale.float().mean(dim=1)

    def chance(self) -> float:
        """The MAE, on the training targets, of who always predicts their mean."""
        return float(self.absolute_deviation.mean())

    def chances(self, directions: Mapping[str, str]) -> dict[str, float | None]:
        """What the mean of the training targets reaches on them; as a density, the normal one of their deviation.

        None for the metrics of plugins, of which that cannot be told.
        """
        own: dict[str, float] = {
            "mae": self.chance(),
            "rmse": float(self.deviation.mean()),
            "correlation": 0.0,
            "nll": float(self.deviation.log().mean()) + 0.5 * math.log(2 * math.pi * math.e),
        }
        return {metric: own.get(metric) for metric in directions}
