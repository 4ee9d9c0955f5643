"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Self

from pydantic import Field, model_validator
from torch import nn
from torch.optim import SGD

from robustmm import Component, Options, hookimpl

from ._options import LR_HELP, WEIGHT_DECAY_HELP, Beta


class SGDOptions(Options):
    """Options of the optimiser.

    Args:
        lr: Learning rate.
        momentum: Share of the last update that is kept.
        dampening: Share of the gradient that is held back from the momentum.
        weight_decay: L2 penalty.
        nesterov: Look ahead along the momentum.
    """

    lr: float = Field(1e-2, gt=0, description=LR_HELP)
    momentum: Beta = Field(0.9, description="share of the last update that is kept")
    dampening: float = Field(0.0, ge=0, le=1, description="share of the gradient that is held back from the momentum")
    weight_decay: float = Field(0.0, ge=0, description=WEIGHT_DECAY_HELP)
    nesterov: bool = Field(False, description="look ahead along the momentum")

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError(
                f"nesterov needs momentum above 0 and dampening 0, got {self.momentum:g} and {self.dampening:g}"
            )
        return self


def build_sgd(
    parameters: Iterable[nn.Parameter],
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
) -> SGD:
    """torch's own SGD."""
    return SGD(parameters, lr, momentum, dampening, weight_decay, nesterov)


@hookimpl
def robustmm_register_optimizers(register: Callable[[Component], None]) -> None:
    """Offer SGD."""
    register(
        Component(
            "sgd", build_sgd, SGDOptions, "Stochastic gradient descent with momentum.", "standard; torch.optim.SGD"
        )
    )
