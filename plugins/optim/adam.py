"""Adam."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pydantic import Field
from torch import nn
from torch.optim import Adam

from robustmm import Component, Options, hookimpl

from ._options import AMSGRAD_HELP, BETAS_HELP, EPS_HELP, LR_HELP, WEIGHT_DECAY_HELP, Beta


class AdamOptions(Options):
    """Options of the optimiser.

    Args:
        lr: Learning rate.
        betas: Decay of the running means of the gradient and of its square.
        eps: Added to the denominator.
        weight_decay: L2 penalty, added to the gradient.
        amsgrad: Divide by the largest mean square seen so far.
    """

    lr: float = Field(1e-3, gt=0, description=LR_HELP)
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description=BETAS_HELP)
    eps: float = Field(1e-8, gt=0, description=EPS_HELP)
    weight_decay: float = Field(0.0, ge=0, description=WEIGHT_DECAY_HELP)
    amsgrad: bool = Field(False, description=AMSGRAD_HELP)


def build_adam(
    parameters: Iterable[nn.Parameter],
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    amsgrad: bool,
) -> Adam:
    """torch's own Adam."""
    return Adam(parameters, lr, betas, eps, weight_decay, amsgrad)


@hookimpl
def robustmm_register_optimizers(register: Callable[[Component], None]) -> None:
    """Offer Adam."""
    register(
        Component(
            "adam",
            build_adam,
            AdamOptions,
            "Steps scaled by running means of the gradient and its square.",
            "Kingma and Ba, ICLR 2015, arXiv:1412.6980; torch.optim.Adam",
        )
    )
