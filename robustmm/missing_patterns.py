"""Which modalities of which test samples go missing, at a wanted rate: independently, together, by label, in blocks.

Every pattern is a function of the shape, the rate and a generator alone, so that masks do not depend on a model. It
returns (N, M) bool, True = shown, with at least one modality shown in every row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robustmm.masks import draw_bernoulli


@dataclass(frozen=True)
class Ground:
    """What masks are drawn over.

    Args:
        samples: N, in the order of the part.
        modalities: M.
        position: (N,) in 0..1: where each sample's label lies among all, see `label_positions`; None where samples have
            no label of their own.
        block_length: Samples in a block.
    """

    samples: int
    modalities: int
    position: Tensor | None = None
    block_length: int = 16


def bernoulli(ground: Ground, rate: float, generator: torch.Generator) -> Tensor:
    """Each modality of each sample is missing with probability ``rate``, independently."""
    return _draw(ground.samples, torch.full((ground.modalities,), 1 - rate), generator)


def shared(ground: Ground, rate: float, generator: torch.Generator) -> Tensor:
    """All modalities fail together: with probability ``rate`` a sample keeps one of them, drawn uniformly, alone."""
    hit = torch.rand(ground.samples, generator=generator) < rate
    left = torch.randint(ground.modalities, (ground.samples,), generator=generator)
    alone = torch.nn.functional.one_hot(left, ground.modalities).bool()
    return torch.where(hit[:, None], alone, torch.ones_like(alone))


def label(ground: Ground, rate: float, generator: torch.Generator) -> Tensor:
    """Missing not at random: the rate grows with the label, linearly, and is ``rate`` in the mean over positions.

    From 0 to twice the rate, or from ``2 rate - 1`` to 1 above one half.
    """
    assert ground.position is not None, "whoever asks for it has looked for labels"
    low, high = max(2 * rate - 1, 0.0), min(2 * rate, 1.0)
    keep = 1 - (low + (high - low) * ground.position)  # (N,)
    return _draw(ground.samples, keep[:, None].expand(-1, ground.modalities), generator)


def block(ground: Ground, rate: float, generator: torch.Generator) -> Tensor:
    """Outages: consecutive samples lose a modality together, each block and modality with probability ``rate``."""
    blocks = -(-ground.samples // ground.block_length)
    drawn = _draw(blocks, torch.full((ground.modalities,), 1 - rate), generator)
    return drawn.repeat_interleave(ground.block_length, dim=0)[: ground.samples]


def one_modality(column: int, ground: Ground, rate: float, generator: torch.Generator) -> Tensor:
    """One modality is missing with probability ``rate``, all others are there."""
    mask = torch.ones(ground.samples, ground.modalities, dtype=torch.bool)
    mask[:, column] = torch.rand(ground.samples, generator=generator) >= rate
    return mask


Pattern = Callable[[Ground, float, torch.Generator], Tensor]
#: Patterns in which every modality may go missing, by name.
PATTERNS: Mapping[str, Pattern] = {"bernoulli": bernoulli, "shared": shared, "label": label, "block": block}
#: The pattern that is drawn once for each modality, see `one_modality`.
PER_MODALITY = "per_modality"


def label_positions(target: Tensor, generator: torch.Generator) -> Tensor:
    """Where each sample's label lies among all labels, in 0..1.

    Classes stand in an order that is drawn, spread evenly; continuous targets by their rank (the first quantity's).

    Args:
        target: (N,) int64 classes, or (N,) or (N, T) floats.
        generator: Of the order of classes.
    """
    if target.is_floating_point():
        rank = target.reshape(len(target), -1)[:, 0].argsort().argsort()
        return rank / max(len(target) - 1, 1)
    classes, place = torch.unique(target, return_inverse=True)
    order = torch.randperm(len(classes), generator=generator)
    return order[place] / max(len(classes) - 1, 1)


def _draw(rows: int, keep: Tensor, generator: torch.Generator) -> Tensor:
    return draw_bernoulli(torch.ones(rows, keep.shape[-1], dtype=torch.bool), keep, generator)
