"""The numbers of a training run, as plain values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.optim import Optimizer

from robustmm.engine.optim import Schedule


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Args:
        seed: Of everything random.
        epochs: Planned epochs.
        make_optimizer: Parameters -> optimiser.
        make_schedule: (epochs, steps per epoch) -> schedule.
        clip_norm: Largest gradient norm; None does not clip.
        select_metric: Score that picks the epoch, such as ``mean/accuracy``.
        select_mode: Whether more or less is better.
        select_every: Epochs between validations; the last epoch is always validated.
        patience: Validations without progress before training stops; None never stops.
        min_delta: What counts as progress.
        log_every: Steps between logs.
        checkpoint_every: Epochs between checkpoints; the last epoch is always saved.
        accumulate: Batches whose gradients are added up before an update.
    """

    seed: int
    epochs: int
    make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    make_schedule: Callable[[int, int], Schedule]
    clip_norm: float | None = None
    select_metric: str = "mean/accuracy"
    select_mode: Literal["max", "min"] = "max"
    select_every: int = 1
    patience: int | None = None
    min_delta: float = 0.0
    log_every: int = 20
    checkpoint_every: int = 1
    accumulate: int = 1
