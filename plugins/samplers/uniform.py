"""Every combination equally likely, drawn for each sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robustmm import CombinationSampler, Component, Options, draw_uniform, hookimpl


class Uniform(CombinationSampler):
    """Each sample draws one of the non-empty subsets of what it has.

    Args:
        modalities: In column order.
    """

    def __init__(self, modalities: Sequence[str]) -> None:
        self.modalities = tuple(modalities)

    def __call__(self, observed: Tensor, generator: torch.Generator) -> Tensor:
        """See `robustmm.masks.draw_uniform`."""
        return draw_uniform(observed, generator)


@hookimpl
def robustmm_register_samplers(register: Callable[[Component], None]) -> None:
    """Offer the uniform draw."""
    register(
        Component(
            "uniform",
            Uniform,
            Options,
            "Each sample shows one of its 2^M - 1 combinations, all equally likely.",
            "ModDrop family; MMANet, arXiv:2304.08028; DMRNet, arXiv:2407.04458",
            fidelity="code",
        )
    )
