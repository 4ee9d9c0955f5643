"""The learning rate falls by a factor every so many epochs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from robustmm import Component, hookimpl

from ._warmup import WarmedSchedule, WarmupOptions


class StepOptions(WarmupOptions):
    """Options of the schedule.

    Args:
        step_epochs: Epochs between two falls, counted from the start of training.
        gamma: Factor at each.
    """

    step_epochs: int = Field(gt=0, description="epochs between two falls, counted from the start of training")
    gamma: float = Field(0.1, gt=0, le=1, description="factor at each fall")

    @classmethod
    def contract_example(cls) -> dict[str, Any]:
        """A fall every third epoch."""
        return {"step_epochs": 3}


class Step(WarmedSchedule):
    """``gamma ** (epoch // step_epochs)``, as torch's StepLR."""

    def __init__(self, epochs: int, steps_per_epoch: int, step_epochs: int, gamma: float, warmup_epochs: int) -> None:
        super().__init__(epochs, steps_per_epoch, warmup_epochs)
        self.step_epochs = step_epochs
        self.gamma = gamma

    def factor(self, step: int) -> float:
        """A staircase."""
        return self.gamma ** (self.epoch(step) // self.step_epochs)


@hookimpl
def robustmm_register_schedules(register: Callable[[Component], None]) -> None:
    """Offer the staircase."""
    register(
        Component("step", Step, StepOptions, "The learning rate falls by a factor every so many epochs.", "standard")
    )
