"""Half a cosine from the configured learning rate downwards."""

from __future__ import annotations

import math
from collections.abc import Callable

from pydantic import Field

from robustmm import Component, hookimpl

from ._warmup import WarmedSchedule, WarmupOptions


class CosineOptions(WarmupOptions):
    """Options of the schedule.

    Args:
        min_factor: Where it ends, as a share of the configured learning rate.
        per_epoch: Change the rate between epochs alone, as most published codes do.
    """

    min_factor: float = Field(0.0, ge=0, le=1, description="share of the learning rate that is left at the end")
    per_epoch: bool = Field(False, description="change the rate between epochs alone")


class Cosine(WarmedSchedule):
    """``min + (1 - min) (1 + cos(pi t)) / 2`` with t the share of training done after warm-up.

    Source:
        SGDR (ICLR 2017, arXiv:1608.03983) without restarts.
    """

    def __init__(
        self, epochs: int, steps_per_epoch: int, min_factor: float, per_epoch: bool, warmup_epochs: int
    ) -> None:
        super().__init__(epochs, steps_per_epoch, warmup_epochs)
        self.min_factor = min_factor
        self.per_epoch = per_epoch

    def factor(self, step: int) -> float:
        """Half a cosine."""
        wave = (1 + math.cos(math.pi * self.progress(step, self.per_epoch))) / 2
        return self.min_factor + (1 - self.min_factor) * wave


@hookimpl
def robustmm_register_schedules(register: Callable[[Component], None]) -> None:
    """Offer the cosine."""
    register(
        Component(
            "cosine",
            Cosine,
            CosineOptions,
            "Half a cosine from the configured learning rate downwards.",
            "Loshchilov and Hutter, ICLR 2017, arXiv:1608.03983",
        )
    )
