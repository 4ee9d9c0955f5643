"""Adam with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pydantic import Field
from torch import nn
from torch.optim import AdamW

from robustmm import Component, Options, hookimpl

from ._options import AMSGRAD_HELP, BETAS_HELP, EPS_HELP, LR_HELP, Beta


class AdamWOptions(Options):
    """Options of the optimiser.

    Args:
        lr: Learning rate.
        betas: Decay of the running means of the gradient and of its square.
        eps: Added to the denominator.
        weight_decay: Decay of the weights themselves, times the learning rate.
        amsgrad: Divide by the largest mean square seen so far.
    """

    lr: float = Field(1e-3, gt=0, description=LR_HELP)
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description=BETAS_HELP)
    eps: float = Field(1e-8, gt=0, description=EPS_HELP)
    weight_decay: float = Field(1e-2, ge=0, description="decay of the weights themselves, times the learning rate")
    amsgrad: bool = Field(False, description=AMSGRAD_HELP)


def build_adamw(
    parameters: Iterable[nn.Parameter],
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    amsgrad: bool,
) -> AdamW:
    """torch's own AdamW."""
    return AdamW(parameters, lr, betas, eps, weight_decay, amsgrad)


@hookimpl
def robustmm_register_optimizers(register: Callable[[Component], None]) -> None:
    """Offer AdamW."""
    register(
        Component(
            "adamw",
            build_adamw,
            AdamWOptions,
            "Adam whose weight decay does not pass through the gradient.",
            "Loshchilov and Hutter, ICLR 2019, arXiv:1711.05101; torch.optim.AdamW",
        )
    )
