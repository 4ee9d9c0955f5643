"""Seeds derived from names and counters, so that a resumed run draws what an uninterrupted one would have drawn."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive_seed(*parts: int | str) -> int:
    """Mix numbers and names into one seed in [0, 2**63); equal parts give equal seeds on every machine and rank."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator_for(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A new generator on ``device``, seeded from ``parts`` (see `derive_seed`)."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))


def seed_everything(*parts: int | str) -> None:
    """Seed Python's, NumPy's and torch's global generators from ``parts``, before anything is built."""
    seed = derive_seed(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - third-party augmentations read the global generator
    torch.manual_seed(seed)


def seed_torch(*parts: int | str) -> None:
    """Seed torch's global generators from ``parts``.

    The training loop calls this before every step with (seed, step, rank). Dropout and sampling inside a model then
    depend on the step alone, and resuming needs no saved generator state.
    """
    torch.manual_seed(derive_seed(*parts))
