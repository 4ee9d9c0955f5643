"""What an optimiser plugin and a schedule plugin hand over, and how a schedule's values reach the optimiser."""

from __future__ import annotations

from typing import NamedTuple

from torch.optim import Optimizer

from robustmm.types import Clock


class ScheduleValues(NamedTuple):
    """What a schedule wants at one step.

    Args:
        lr_factor: Multiplies the learning rate of the configuration.
        momentum: Replaces momentum (the first beta of Adam); None leaves it.
    """

    lr_factor: float
    momentum: float | None = None


class Schedule:
    """Learning rate over training, as a function of the step alone, so that resuming needs no state.

    Args:
        epochs: Planned epochs.
        steps_per_epoch: Steps in one epoch.
    """

    def __init__(self, epochs: int, steps_per_epoch: int) -> None:
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch

    def __call__(self, step: int) -> ScheduleValues:
        """Values for the update that follows ``step`` finished ones; as it stands, the configured rate."""
        return ScheduleValues(1.0)


def scheduled_step(clock: Clock, done: int, planned: int) -> int:
    """Steps done by the schedule's count, in which every epoch has ``clock.steps_per_epoch``.

    Args:
        clock: Its epoch is the current one.
        done: Updates made in this epoch.
        planned: Updates that this epoch has, more or fewer than others where a balancer chose its samples.
    """
    return clock.epoch * clock.steps_per_epoch + done * clock.steps_per_epoch // planned


def apply_schedule(optimizer: Optimizer, schedule: Schedule, step: int) -> float:
    """Set learning rate and momentum for one step; return the first group's learning rate."""
    values = schedule(step)
    for group in optimizer.param_groups:
        base = group.setdefault("base_lr", group["lr"])
        group["lr"] = base * values.lr_factor
        if values.momentum is not None and "momentum" in group:
            group["momentum"] = values.momentum
        elif values.momentum is not None and "betas" in group:
            group["betas"] = (values.momentum, *group["betas"][1:])
    return float(optimizer.param_groups[0]["lr"])
