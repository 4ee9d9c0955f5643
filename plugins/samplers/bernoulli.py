"""Modalities that go missing independently."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustmm import CombinationSampler, Component, Options, draw_bernoulli, hookimpl, parse_combination

Rate = Annotated[float, Field(ge=0, le=1)]


class BernoulliOptions(Options):
    """Options of the sampler.

    Args:
        missing_rate: Probability that a modality goes missing: one number for all, or modality -> number, where those
            not named never do.
    """

    missing_rate: Rate | dict[str, Rate] = Field(
        0.5, description="probability that a modality goes missing: one number, or modality -> number (others stay)"
    )


class Bernoulli(CombinationSampler):
    """Each modality of each sample goes missing on its own; a sample that lost all gets one back, drawn uniformly.

    The share that goes missing is therefore a little below ``missing_rate``: with M modalities at rate r a single one
    goes missing with probability r - r**M / M.

    Args:
        modalities: In column order.
        missing_rate: One number, or modality -> number.

    Raises:
        RobustmmError: a rate for an unknown modality.

    Source:
        ModDrop (arXiv:1501.00102); the repair of empty samples as in RobustSeg's code.
    """

    def __init__(self, modalities: Sequence[str], missing_rate: float | Mapping[str, float]) -> None:
        if isinstance(missing_rate, Mapping):
            for name in missing_rate:
                parse_combination(name, modalities)
            rates = [missing_rate.get(name, 0.0) for name in modalities]
        else:
            rates = [missing_rate] * len(modalities)
        self.keep = 1 - torch.tensor(rates)

    def __call__(self, observed: Tensor, generator: torch.Generator) -> Tensor:
        """See `robustmm.masks.draw_bernoulli`."""
        return draw_bernoulli(observed, self.keep, generator)


@hookimpl
def robustmm_register_samplers(register: Callable[[Component], None]) -> None:
    """Offer independent losses."""
    register(
        Component(
            "bernoulli",
            Bernoulli,
            BernoulliOptions,
            "Each modality goes missing with a given probability; at least one stays.",
            "Neverova et al., arXiv:1501.00102; code of RobustSeg",
            fidelity="part",
        )
    )
