"""The learning rate falls by a factor at given epochs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import Field, field_validator

from robustmm import Component, hookimpl

from ._warmup import WarmedSchedule, WarmupOptions


class MultistepOptions(WarmupOptions):
    """Options of the schedule.

    Args:
        milestones: Epochs at whose start the rate falls, counted from 0 at the start of training.
        gamma: Factor at each.
    """

    milestones: tuple[Annotated[int, Field(gt=0)], ...] = Field(
        min_length=1, description="epochs at whose start the rate falls, counted from 0, in rising order"
    )
    gamma: float = Field(0.1, gt=0, le=1, description="factor at each milestone")

    @classmethod
    def contract_example(cls) -> dict[str, Any]:
        """Two falls."""
        return {"milestones": (2, 5)}

    @field_validator("milestones")
    @classmethod
    def _rising(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError(f"must rise, got {list(value)}")
        return value


class Multistep(WarmedSchedule):
    """``gamma ** (milestones behind)``, as torch's MultiStepLR."""

    def __init__(
        self, epochs: int, steps_per_epoch: int, milestones: Sequence[int], gamma: float, warmup_epochs: int
    ) -> None:
        super().__init__(epochs, steps_per_epoch, warmup_epochs)
        self.milestones = tuple(milestones)
        self.gamma = gamma

    def factor(self, step: int) -> float:
        """A staircase."""
        return self.gamma ** sum(milestone <= self.epoch(step) for milestone in self.milestones)


@hookimpl
def robustmm_register_schedules(register: Callable[[Component], None]) -> None:
    """Offer falls at given epochs."""
    register(
        Component(
            "multistep", Multistep, MultistepOptions, "The learning rate falls by a factor at given epochs.", "standard"
        )
    )
