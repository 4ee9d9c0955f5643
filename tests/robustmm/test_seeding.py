"""Seeds from names and counters."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from robustmm.seeding import derive_seed, generator_for, seed_everything, seed_torch


@pytest.mark.parametrize(
    ("parts", "seed"),
    [((0,), 4246866556266386882), ((0, "masks", 7), 3477518499650061271), (("a", 1), 6962120981034877120)],
)
def test_derive_seed__keeps_its_values(parts: tuple[int | str, ...], seed: int) -> None:
    """Values of this function as first released: splits and masks of published runs depend on them."""
    assert derive_seed(*parts) == seed


def test_derive_seed__tells_parts_apart() -> None:
    seeds = [derive_seed(*parts) for parts in [(1, 23), (12, 3), (123,), ("1", 2, 3), (1, 2, 3, ""), ("a", "b")]]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generator_for__draws_the_same_whatever_was_drawn_elsewhere() -> None:
    first = torch.rand(3, generator=generator_for(0, "masks", 1))
    torch.rand(7)
    assert torch.equal(torch.rand(3, generator=generator_for(0, "masks", 1)), first)
    assert not torch.equal(torch.rand(3, generator=generator_for(0, "masks", 2)), first)


def test_seed_everything__seeds_python_numpy_and_torch() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002 - the global one is meant

    seed_everything(3, "weights")
    first = draw()
    assert draw() != first
    seed_everything(3, "weights")
    assert draw() == first


def test_seed_torch__makes_a_step_depend_on_its_number_alone() -> None:
    seed_torch(0, 5, 0)
    dropped = torch.nn.functional.dropout(torch.ones(64))
    seed_torch(0, 4, 0)
    torch.rand(11)
    seed_torch(0, 5, 0)
    assert torch.equal(torch.nn.functional.dropout(torch.ones(64)), dropped)
    seed_torch(0, 5, 1)
    assert not torch.equal(torch.nn.functional.dropout(torch.ones(64)), dropped)
