"""Corruptions built from the registry with their defaults, for one modality."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robustmm import Corruption, Modality, Scaling, Spread
from robustmm.plugin_manager import get_plugins


def corruption(name: str, shape: tuple[int, ...], spread: Spread, *, invalid: float | None = None, **options: Any):
    """A corruption for a modality of this shape, which tells its kind."""
    kind = {1: "vector", 2: "sequence", 3: "image"}[len(shape)]
    component = get_plugins().registry.get("corruption", name)
    given = component.options.model_validate(options)
    modality = Modality("m", kind, shape, Scaling("none", invalid=invalid))
    made: Corruption = component.build(modality=modality, spread=spread, **dict(given))
    return made


def eight_bit(channels: int) -> Spread:
    """The spread of 8-bit pictures."""
    return Spread(0.0, 255.0, (127.0,) * channels, (60.0,) * channels)


def picture(*shape: int, seed: int = 0) -> Tensor:
    """Whole numbers from 0 to 255."""
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed)).float()


def generator(seed: int = 0) -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(seed)
