"""Up to the configured learning rate and down again, once, with momentum the other way round."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import Field

from robustmm import Component, Options, Schedule, ScheduleValues, hookimpl


class OneCycleOptions(Options):
    """Options of the schedule; the configured learning rate is its highest.

    Args:
        per_epoch: Change the values between epochs alone, as ESANet and MMANet do.
        rise_share: Share of the training spent rising.
        start_divisor: Highest rate divided by the first.
        end_divisor: First rate divided by the last.
        cycle_momentum: Lower momentum (the first beta of Adam) while the rate rises.
        min_momentum: At the highest rate.
        max_momentum: At both ends.
    """

    per_epoch: bool = Field(False, description="change the values between epochs alone, as ESANet and MMANet do")
    rise_share: float = Field(0.3, ge=0, le=1, description="share of the training spent rising")
    start_divisor: float = Field(25.0, ge=1, description="highest learning rate divided by the first")
    end_divisor: float = Field(1e4, ge=1, description="first learning rate divided by the last")
    cycle_momentum: bool = Field(True, description="lower momentum (Adam: the first beta) while the rate rises")
    min_momentum: float = Field(0.85, ge=0, lt=1, description="momentum at the highest rate")
    max_momentum: float = Field(0.95, ge=0, lt=1, description="momentum at both ends")


@dataclass(frozen=True)
class Cycle:
    """Where values stand in a cycle of ``total`` positions, the highest rate at ``rise_share * total - 1``."""

    total: int
    rise_share: float

    def between(self, position: int, start: float, peak: float, end: float) -> float:
        """Half a cosine from ``start`` to ``peak``, then one to ``end``."""
        top, last = self.rise_share * self.total - 1, float(self.total - 1)
        if position <= top:
            return _anneal(start, peak, position / top if top else 1.0)
        return _anneal(peak, end, min((position - top) / (last - top), 1.0) if last > top else 1.0)


def _anneal(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


class OneCycle(Schedule):
    """Equal to torch's OneCycleLR with cosine annealing, as a function of the step.

    It warms up by itself, so it has no ``warmup_epochs``. With ``rise_share`` 0.3 over 100 epochs the highest rate
    stands in epoch 29.

    Source:
        Smith and Topin, arXiv:1708.07120; torch.optim.lr_scheduler.OneCycleLR.
    """

    def __init__(
        self,
        epochs: int,
        steps_per_epoch: int,
        per_epoch: bool,
        rise_share: float,
        start_divisor: float,
        end_divisor: float,
        cycle_momentum: bool,
        min_momentum: float,
        max_momentum: float,
    ) -> None:
        super().__init__(epochs, steps_per_epoch)
        self.steps_per_position = steps_per_epoch if per_epoch else 1
        self.cycle = Cycle(epochs if per_epoch else epochs * steps_per_epoch, rise_share)
        self.start_factor = 1 / start_divisor
        self.end_factor = self.start_factor / end_divisor
        self.momentum = (max_momentum, min_momentum, max_momentum) if cycle_momentum else None

    def __call__(self, step: int) -> ScheduleValues:
        """See `Schedule.__call__`."""
        position = step // self.steps_per_position
        factor = self.cycle.between(position, self.start_factor, 1.0, self.end_factor)
        return ScheduleValues(factor, None if self.momentum is None else self.cycle.between(position, *self.momentum))


@hookimpl
def robustmm_register_schedules(register: Callable[[Component], None]) -> None:
    """Offer one cycle."""
    register(
        Component(
            "one_cycle",
            OneCycle,
            OneCycleOptions,
            "Up to the configured learning rate and down again, momentum the other way round.",
            "Smith and Topin, arXiv:1708.07120; torch.optim.lr_scheduler.OneCycleLR",
            fidelity="code",
        )
    )
