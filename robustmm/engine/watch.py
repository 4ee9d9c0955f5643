"""Losses between two logs: their means, and a stop when one is not finite, without waiting for the GPU each step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robustmm import distributed
from robustmm.errors import RunFailed
from robustmm.masks import shown_combinations
from robustmm.types import Clock, LossTerm


@dataclass(frozen=True)
class _Entry:
    clock: Clock
    names: tuple[str, ...]
    values: Tensor
    presence: Tensor


class LossWatch:
    """Collects loss terms on the device and looks at them in one transfer.

    On a CPU every step is looked at; elsewhere looking waits for the device, so it is done when something is logged and
    before anything is saved.

    Args:
        modalities: To name combinations.
        every_step: Look at once after each step.
    """

    def __init__(self, modalities: Sequence[str], *, every_step: bool) -> None:
        self.modalities = tuple(modalities)
        self.every_step = every_step
        self._pending: list[_Entry] = []
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, clock: Clock, terms: Mapping[str, LossTerm], presence: Tensor) -> None:
        """Keep the terms of one step, none where a balancer made no update.

        Raises:
            RunFailed: a term is not finite (at once on a CPU).
        """
        if not terms:
            return
        values = torch.stack([term.value.detach().float() for term in terms.values()])
        self._pending.append(_Entry(clock, tuple(terms), values, presence))
        if self.every_step:
            self.look()

    def read(self) -> dict[str, float]:
        """Mean of each term since the last read, as ``loss/<term>``, and their sum as ``loss/total``.

        Raises:
            RunFailed: a term is not finite; the message names the first step, the terms and the combinations.
        """
        self.look()
        means = {f"loss/{name}": self._sums[name] / self._counts[name] for name in self._sums}
        if means:
            means["loss/total"] = sum(means.values())
        self._sums, self._counts = {}, {}
        return means

    def look(self) -> None:
        """Fetch what has not been looked at yet; on every process of a run alike.

        Raises:
            RunFailed: as for `read`.
        """
        if not self._pending:
            return
        values = torch.cat([entry.values for entry in self._pending]).tolist()
        start, failure = 0, None
        for entry in self._pending:
            own = dict(zip(entry.names, values[start : start + len(entry.names)], strict=True))
            start += len(entry.names)
            failure = failure or self._failure(entry, own)
            for name, value in own.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
                self._counts[name] = self._counts.get(name, 0) + 1
        self._pending = []
        for found in distributed.gather_objects(failure):  # all stop where one must, or the others would wait for it
            if found is not None:
                raise RunFailed(found)

    def state(self) -> dict[str, Any]:
        """For the checkpoint: the sums since the last read.

        Raises:
            RunFailed: as for `read`, so that nothing is saved after a term that is not finite.
        """
        self.look()
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])

    def _failure(self, entry: _Entry, values: Mapping[str, float]) -> str | None:
        """What is wrong with the terms of one step, in words; None where they are finite."""
        bad = [f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)]
        if not bad:
            return None
        combinations = ", ".join(shown_combinations(entry.presence, self.modalities))
        return (
            f"non-finite loss at step {entry.clock.step} (epoch {entry.clock.epoch}): {', '.join(bad)}; "
            f"combinations in the batch: {combinations}. No later checkpoint was written; "
            f"try a lower optimizer.lr, train.clip_norm, or train.precision 32"
        )
