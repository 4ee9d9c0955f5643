"""Regression of one or several quantities of a whole sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from robustmm import Component, Options, RegressionTask, hookimpl


class RegressionOptions(Options):
    """Options of regression."""

    loss: Literal["mse", "l1", "huber"] = Field("mse", description="Of standardised targets; mean over the batch.")
    huber_delta: float = Field(
        1.0, gt=0, description="Deviations of the target from which the Huber loss goes on in a straight line."
    )


@hookimpl
def robustmm_register_tasks(register: Callable[[Component], None]) -> None:
    """Offer regression."""
    register(
        Component(
            "regression",
            RegressionTask,
            RegressionOptions,
            "One or several numbers per sample: MAE, RMSE, correlation, and likelihood where a method gives one.",
            "standard",
        )
    )
