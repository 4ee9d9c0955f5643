"""Sets of modality combinations, and the extra loss on samples that show one of them; for MMANet and DMRNet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from robustmm import Combination, Task, all_combinations, combination_name, masked_mean, outer_mean, presence_of

RegularisationForm = Literal["masked", "outer"]


def missing_one(modalities: Sequence[str]) -> list[Combination]:
    """The combinations that miss exactly one modality; none where there is a single modality."""
    if len(modalities) == 1:
        return []
    return [tuple(name for name in modalities if name != absent) for absent in reversed(modalities)]


def with_subsets(combination: Combination) -> list[Combination]:
    """The combination and every smaller non-empty one inside it."""
    return all_combinations(combination)


class CombinationSet(nn.Module):
    """Some combinations of the modalities, asked row by row without leaving the device.

    Args:
        modalities: In column order.
        combinations: Members to begin with.
    """

    table: Tensor

    def __init__(self, modalities: Sequence[str], combinations: Iterable[Combination] = ()) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.register_buffer("table", torch.zeros(0, len(self.modalities), dtype=torch.bool), persistent=False)
        self.replace(combinations)

    def replace(self, combinations: Iterable[Combination]) -> None:
        """Make ``combinations`` the members."""
        self.combinations = tuple(combinations)
        rows = [presence_of(combination, self.modalities) for combination in self.combinations]
        table = torch.stack(rows) if rows else torch.zeros(0, len(self.modalities), dtype=torch.bool)
        self.table = table.to(self.table.device)  # (K, M)

    @property
    def names(self) -> list[str]:
        """The members as they are written, such as ``rgb+depth``."""
        return [combination_name(combination) for combination in self.combinations]

    def matches(self, presence: Tensor) -> Tensor:
        """Which member each sample shows: presence (B, M) bool -> (B, K) bool."""
        return (presence[:, None] == self.table[None]).all(dim=2)

    def contains(self, presence: Tensor) -> Tensor:
        """Whether a sample shows a member: presence (B, M) bool -> (B,) bool."""
        return self.matches(presence).any(dim=1)


def combination_loss(
    task: Task, scales: Sequence[Tensor], target: Tensor, keep: Tensor, form: RegularisationForm
) -> Tensor:
    """The task's loss on the kept samples, a scalar.

    Args:
        task: Global or dense.
        scales: Logits of the head that is to be trained on these samples, side outputs included; their losses add up.
        target: Labels of the batch.
        keep: (B,) bool.
        form: ``masked`` is the intended form: in global prediction the sum of the kept losses divided by B, in dense
            prediction the loss of the sub-batch, normalised by its own valid pixels, as in both releases. ``outer`` is
            the broadcast of the released classification codes, see `outer_mean`.
    """
    losses = [_one_loss(task, logits, task.at(target, tuple(logits.shape[2:])), keep, form) for logits in scales]
    return torch.stack(losses).sum()


def _one_loss(task: Task, logits: Tensor, target: Tensor, keep: Tensor, form: RegularisationForm) -> Tensor:
    if form == "outer":
        return outer_mean(task.sample_losses(logits, target), keep)
    if task.dense:
        return task.masked_loss(logits, target, keep)
    return masked_mean(task.sample_losses(logits, target), keep)
