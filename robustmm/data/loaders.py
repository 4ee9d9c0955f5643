"""Batches of a part: shuffled from (seed, epoch) for training, in order for evaluation, shared out over processes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from robustmm import distributed
from robustmm.data.collate import Collate
from robustmm.data.parts import Part
from robustmm.errors import RobustmmError
from robustmm.seeding import generator_for
from robustmm.types import Batch, Modality

Key = tuple[int, int]


class _Plan(Sampler[list[Key]]):
    """The batches that the loader is to give next; the owner sets them before it iterates."""

    def __init__(self) -> None:
        self.batches: list[list[Key]] = []

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Batches:
    """Makes batches in a loader's worker; an error of ours comes back as a value, since torch wraps one that is raised
    in its own text with a traceback.

    Args:
        part: Samples.
        collate: Samples -> batch.
    """

    def __init__(self, part: Part, collate: Collate) -> None:
        self.part = part
        self.collate = collate

    def __getitems__(self, keys: Sequence[Key]) -> Batch | RobustmmError:
        try:
            return self.collate(self.part.__getitems__(keys))
        except RobustmmError as error:
            return error


def _as_made(batch: Any) -> Any:
    return batch


def _kept(batches: Iterator[Batch], keep: Tensor) -> Iterator[Batch]:
    """Batches with their rows of ``keep``, a sample that would be left with nothing with all that it has."""
    start = 0
    for batch in batches:
        own = keep[start : start + len(batch)]
        start += len(batch)
        nothing = ~(own & batch.observed).any(dim=1, keepdim=True)
        yield replace(batch, keep=own | nothing)


def _raised(loaded: Iterator[Batch | RobustmmError]) -> Iterator[Batch]:
    for batch in loaded:
        if isinstance(batch, RobustmmError):
            raise batch
        yield batch


class PartLoader:
    """Batches of one part.

    Args:
        part: Samples.
        modalities: Columns of the data.
        batch_size: Per process.
        seed: Of the order of training batches.
        workers: Loader processes; 0 loads in this one.
        pin_memory: Page-locked batches, for a GPU.
    """

    def __init__(
        self,
        part: Part,
        modalities: Sequence[Modality],
        *,
        batch_size: int,
        seed: int = 0,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.part = part
        self.batch_size = batch_size
        self.seed = seed
        self.modalities = tuple(modalities)
        self.workers = workers
        self.pin_memory = pin_memory
        self._plain: PartLoader | None = None
        self._only: tuple[str, ...] | None = None
        self._plan = _Plan()
        self._loader: DataLoader[Batch | RobustmmError] = DataLoader(
            _Batches(part, Collate(modalities)),  # type: ignore[arg-type]  # torch asks for batches alone
            batch_sampler=self._plan,
            collate_fn=_as_made,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            generator=torch.Generator().manual_seed(0),  # worker seeds; without it iterating draws from the global one
        )

    def without_augmentation(self) -> PartLoader:
        """The same samples as they are."""
        if self._plain is None:
            plain = PartLoader(
                self.part.without_augmentation(),
                self.modalities,
                batch_size=self.batch_size,
                workers=self.workers,
                pin_memory=self.pin_memory,
            )
            self._plain = plain if self._only is None else plain.only(self._only)
        return self._plain

    def only(self, names: Sequence[str]) -> PartLoader:
        """The same batches with some of the modalities, for a network that has no other; see `Batch.only`.

        Everything is loaded as before and by the same worker processes, so only one of the two may be iterated at once.
        """
        if tuple(names) == tuple(modality.name for modality in self.modalities):
            return self
        chosen = copy.copy(self)
        chosen._only, chosen._plain = tuple(names), None
        return chosen

    def steps_per_epoch(self, indices: Tensor | None = None) -> int:
        """Batches in a training epoch, the same for every process."""
        count = len(self.part) if indices is None else len(indices)
        return len(_sizes(_per_process(count), self.batch_size))

    def training(
        self, epoch: int, *, start: int = 0, indices: Tensor | None = None, keep: Tensor | None = None
    ) -> Iterator[Batch]:
        """An epoch in an order drawn from (seed, epoch).

        Every process gets equally many samples; where the count does not divide, the first of the order come twice. A
        last batch of a single sample joins the batch before it, because BatchNorm cannot train on one row.

        Args:
            epoch: Its number.
            start: Batches to leave out, for resuming in mid-epoch.
            indices: A balancer's choice of positions, with repetitions.
            keep: (len(indices), M) bool: what each of them may show.
        """
        chosen = torch.arange(len(self.part)) if indices is None else indices
        order = torch.randperm(len(chosen), generator=generator_for(self.seed, "order", epoch))
        share = _per_process(len(order))
        places = torch.arange(distributed.rank(), share * distributed.world_size(), distributed.world_size())
        own = order[places % len(order)]
        sizes = _sizes(share, self.batch_size)[start:]
        batches = self._iterate(chosen[own], sizes, epoch, skip=start)
        return self._chosen(batches if keep is None else _kept(batches, keep[own][start * self.batch_size :]))

    def ordered(self, indices: Tensor | None = None, *, whole: bool = False) -> Iterator[Batch]:
        """Every sample once, or those at some positions, in order: of this process's share, or of the whole part."""
        own = torch.arange(len(self.part)) if indices is None else indices
        if not whole:
            own = own[distributed.rank() :: distributed.world_size()]
        return self._chosen(self._iterate(own, [self.batch_size] * -(-len(own) // self.batch_size), epoch=0, skip=0))

    def _chosen(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        names = self._only
        return batches if names is None else (batch.only(names) for batch in batches)

    def _iterate(self, own: Tensor, sizes: Sequence[int], epoch: int, *, skip: int) -> Iterator[Batch]:
        rest = own[skip * self.batch_size :]
        batches = []
        for size in sizes:
            batches.append([(position, epoch) for position in rest[:size].tolist()])
            rest = rest[size:]
        self._plan.batches = batches
        return _raised(iter(self._loader))


def in_groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Consecutive batches, ``size`` at a time; the last group may be smaller."""
    remaining = iter(batches)
    while group := list(islice(remaining, size)):
        yield group


def _per_process(count: int) -> int:
    return -(-count // distributed.world_size())


def _sizes(count: int, batch_size: int) -> list[int]:
    sizes = [batch_size] * (count // batch_size)
    left = count % batch_size
    if left == 1 and sizes and batch_size > 1:
        sizes[-1] += 1
    elif left:
        sizes.append(left)
    return sizes
