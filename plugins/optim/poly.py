"""A power of the share of training that is left."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field

from robustmm import Component, hookimpl

from ._warmup import WarmedSchedule, WarmupOptions


class PolyOptions(WarmupOptions):
    """Options of the schedule.

    Args:
        power: 1 falls in a straight line.
        per_epoch: Change the rate between epochs alone.
    """

    power: float = Field(0.9, gt=0, description="exponent; 1 falls in a straight line")
    per_epoch: bool = Field(False, description="change the rate between epochs alone")


class Poly(WarmedSchedule):
    """``(1 - t) ** power`` with t the share of training done after warm-up, as torch's PolynomialLR.

    Source:
        DeepLab (arXiv:1606.00915), power 0.9 per step.
    """

    def __init__(self, epochs: int, steps_per_epoch: int, power: float, per_epoch: bool, warmup_epochs: int) -> None:
        super().__init__(epochs, steps_per_epoch, warmup_epochs)
        self.power = power
        self.per_epoch = per_epoch

    def factor(self, step: int) -> float:
        """A power of what is left."""
        return float((1 - self.progress(step, self.per_epoch)) ** self.power)


@hookimpl
def robustmm_register_schedules(register: Callable[[Component], None]) -> None:
    """Offer polynomial decay."""
    register(
        Component(
            "poly",
            Poly,
            PolyOptions,
            "A power of the share of training that is left.",
            "Chen et al., arXiv:1606.00915",
        )
    )
