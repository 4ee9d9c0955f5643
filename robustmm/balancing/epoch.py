"""All that a balancer sees before an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from robustmm.methods.method import Evaluate, Method
from robustmm.models.modes import evaluating
from robustmm.seeding import generator_for
from robustmm.types import Batch, Clock, Output

if TYPE_CHECKING:
    from robustmm.balancing.balancer import Balancer


class Trial(Protocol):
    """Trains a copy of the model for a while; the model, its optimiser and random numbers to come stay as they are."""

    def __call__(self, balancer: Balancer, *, epochs: int, indices: Tensor | None = None) -> Method:
        """Returns the trained copy.

        Args:
            balancer: What the copy is trained with.
            epochs: Passes over the samples, at the learning rate of the moment, with an optimiser of its own.
            indices: Positions to train on; None means the whole training part.
        """


class Batches(Protocol):
    """Iterates once over this process's share of the training part."""

    def __call__(self, indices: Tensor | None = None) -> Iterable[Batch]:
        """Batches in order; of the positions asked for, where some are."""


@dataclass
class EpochView:
    """The data before an epoch, as a balancer sees them. Samples come without augmentation, on the run's device.

    Args:
        method: The method in training.
        clock: The coming epoch.
        groups: Modality -> the encoder parameters that it owns.
        samples: Size of the training part.
        batches: See `Batches`; sums over them are to be reduced over processes.
        held_out: Iterates likewise over the validation part, never test.
        evaluate: Scores on the validation part.
        trial: See `Trial`.
        forget: ``forget(parameters)`` drops what the optimiser remembers of them, such as momentum.
        all_reduce: Sum of a tensor over processes.
        gather: ``gather(tensor)`` is every process's rows of a tensor (N, ...) one after the other, on the CPU.
        seed: The run's seed.
    """

    method: Method
    clock: Clock
    groups: Mapping[str, Sequence[nn.Parameter]]
    samples: int
    batches: Batches
    held_out: Callable[[], Iterable[Batch]]
    evaluate: Evaluate
    trial: Trial
    forget: Callable[[Iterable[nn.Parameter]], None]
    all_reduce: Callable[[Tensor], Tensor] = field(default=lambda tensor: tensor)
    gather: Callable[[Tensor], Tensor] = field(default=lambda tensor: tensor.cpu())
    seed: int = 0

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names in column order."""
        return self.method.modalities

    def outputs(self, batches: Iterable[Batch], method: Method | None = None) -> Iterator[tuple[Batch, Output]]:
        """What a model makes of all that the samples have, in evaluation mode and without gradient.

        Args:
            batches: From `batches` or `held_out`.
            method: A copy that `trial` has trained; None means the model itself.
        """
        model = self.method if method is None else method
        with evaluating(model), torch.no_grad():
            for batch in batches:
                yield batch, model.train_output(batch, batch.observed)

    def generator(self, purpose: str) -> torch.Generator:
        """A generator on the CPU, seeded from (seed, epoch, purpose): the same on every rank, new each epoch."""
        return generator_for(self.seed, "epoch", self.clock.epoch, purpose)
