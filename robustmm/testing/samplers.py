"""What combination samplers promise."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from robustmm.masks import CombinationSampler
from robustmm.registry import Component
from robustmm.testing.contract import build, check, during, require, seed_cpu
from robustmm.testing.tiny import NAMES


def draws(component: Component) -> Iterator[tuple[CombinationSampler, Tensor]]:
    """(sampler, observed) for one to four modalities and batches of one and more; some samples lack modalities."""
    for count in range(1, 5):
        for size in (1, 2, 33):
            with during(f"{count} modalities, batch of {size}"):
                sampler: CombinationSampler = build(component, modalities=NAMES[:count])
                observed = torch.rand(size, count) < 0.7
                observed[: size // 2] = True
                if size > 2:
                    observed[-1] = False
                yield sampler, observed
                yield sampler, torch.ones(size, count, dtype=torch.bool)


def draw(sampler: CombinationSampler, observed: Tensor, seed: int = 0) -> Tensor:
    """A mask from a generator of this seed."""
    return sampler(observed.clone(), torch.Generator().manual_seed(seed))


@check("sampler")
def shows_only_what_is_there(component: Component) -> None:
    """``presence <= observed``, a bool mask of the same shape, and ``observed`` is not written to."""
    for sampler, observed in draws(component):
        for seed in range(5):
            before = observed.clone()
            presence = sampler(observed, torch.Generator().manual_seed(seed))
            require(presence.dtype == torch.bool and presence.shape == observed.shape, "the mask is not (B, M) bool")
            require(torch.equal(observed, before), "the sampler writes to observed")
            require(not (presence & ~observed).any(), "a modality is shown that is not observed")


@check("sampler")
def leaves_something_to_every_sample(component: Component) -> None:
    """A sample that has a modality keeps at least one; one that has none keeps none."""
    for sampler, observed in draws(component):
        for seed in range(5):
            kept = draw(sampler, observed, seed).any(dim=1)
            require(torch.equal(kept, observed.any(dim=1)), "a sample that has modalities is shown with none")


@check("sampler")
def depends_on_the_generator_alone(component: Component) -> None:
    """Equal generators give equal masks: earlier calls and torch's global generator play no part."""
    for sampler, observed in draws(component):
        first = draw(sampler, observed)
        draw(sampler, observed, seed=1)
        before = torch.random.get_rng_state()
        again = draw(sampler, observed)
        untouched = torch.equal(torch.random.get_rng_state(), before)
        require(torch.equal(first, again), "two equal generators give two masks; keep no state between calls")
        require(untouched, "it draws from torch's global generator; draw from the one that is passed in")
        seed_cpu(1)
        require(torch.equal(first, draw(sampler, observed)), "the mask depends on torch's global generator")
        seed_cpu(0)
