"""All that a balancer sees before an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from robustmm.masks import combination_table
from robustmm.methods.method import Evaluate, Method
from robustmm.methods.probes import alone_masks, logits_by_chunk, subset_logits
from robustmm.models.modes import evaluating
from robustmm.seeding import generator_for
from robustmm.types import Batch, Clock, Output

if TYPE_CHECKING:
    from robustmm.balancing.balancer import Balancer

#: (logits (B, C, ...), target) -> (B,).
Score = Callable[[Tensor, Tensor], Tensor]


class Trial(Protocol):
    """Trains a copy of the model for a while; the model, its optimiser and random numbers to come stay as they are."""

    def __call__(self, balancer: Balancer, *, epochs: int, indices: Tensor | None = None) -> Method:
        """Returns the trained copy.

        Args:
            balancer: What the copy is trained with.
            epochs: Passes over the samples, at the learning rates that the run has in these epochs, with an optimiser
                of its own.
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
        autocast: Precision context of the run.
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
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names in column order."""
        return self.method.modalities

    def outputs(self, batches: Iterable[Batch], method: Method | None = None) -> Iterator[tuple[Batch, Output]]:
        """What a model makes of all that the samples have, in evaluation mode and without gradient.

        Between two batches the model's mode is as it was, and gradients are recorded as before.

        Args:
            batches: From `batches` or `held_out`.
            method: A copy that `trial` has trained; None means the model itself.
        """
        model = self.method if method is None else method
        for batch in batches:
            with self.looking(model):
                output = model.train_output(batch, batch.observed)
            yield batch, output

    @contextmanager
    def looking(self, method: Method | None = None) -> Iterator[None]:
        """Evaluation mode, no gradient, and the run's precision, for what is computed within.

        Args:
            method: As for `outputs`.
        """
        with evaluating(self.method if method is None else method), torch.no_grad(), self.autocast():
            yield

    def subset_scores(self, batches: Iterable[Batch], score: Score) -> Iterator[tuple[Batch, Tensor]]:
        """Score what the model makes of each combination; every modality is encoded once and fused anew.

        Args:
            batches: From `batches` or `held_out`.
            score: ``score(logits, target)`` is one value per sample, (B,).

        Yields:
            The batch and (B, 2**M - 1) scores, combinations in the order of `robustmm.combination_table`. A combination
            is cut to what a sample has; the score of one of which nothing is left means nothing.
        """
        table = combination_table(self.modalities)
        for batch, output in self.outputs(batches):
            with self.looking():
                chunks = logits_by_chunk(self.method, batch, output, batch.observed & table[:, None])
                scores = [score(own, batch.target) for chunk in chunks for own in chunk]
            yield batch, torch.stack(scores, dim=1)

    def alone_losses(self) -> Tensor:
        """The task's loss of every training sample by each modality alone, through the model's own fusion and head.

        Returns:
            (samples, M) float32 on the CPU, by position in the training part, the same on every process; NaN where the
            sample does not have the modality.
        """
        index, losses = [], []
        for batch, output in self.outputs(self.batches()):
            with self.looking():
                logits = subset_logits(self.method, output, alone_masks(output.presence), batch.inputs)
                assert logits is not None  # inputs are at hand
                own = [self.method.task.sample_losses(one.float(), batch.target) for one in logits]
            index.append(batch.index)
            losses.append(torch.stack(own, dim=1).float().cpu().masked_fill(~batch.observed, torch.nan))
        table = torch.full((self.samples, len(self.modalities)), torch.nan)
        if index:
            table[self.gather(torch.cat(index))] = self.gather(torch.cat(losses))
        return table

    def generator(self, purpose: str) -> torch.Generator:
        """A generator on the CPU, seeded from (seed, epoch, purpose): the same on every rank, new each epoch."""
        return generator_for(self.seed, "epoch", self.clock.epoch, purpose)
