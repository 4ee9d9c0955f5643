"""Every number of modalities equally likely."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robustmm import CombinationSampler, Component, Options, draw_cardinality, hookimpl


class Cardinality(CombinationSampler):
    """Each sample draws how many of its modalities stay, then which; single ones come up more often than in `uniform`.

    Args:
        modalities: In column order.
    """

    def __init__(self, modalities: Sequence[str]) -> None:
        self.modalities = tuple(modalities)

    def __call__(self, observed: Tensor, generator: torch.Generator) -> Tensor:
        """See `robustmm.masks.draw_cardinality`."""
        return draw_cardinality(observed, generator)


@hookimpl
def robustmm_register_samplers(register: Callable[[Component], None]) -> None:
    """Offer the draw by size."""
    register(
        Component(
            "cardinality",
            Cardinality,
            Options,
            "Draw how many modalities stay, uniformly, then which.",
            "code of ShaSpec and U-HVED",
            fidelity="code",
        )
    )
