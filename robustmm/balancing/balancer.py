"""The contract of a balancing strategy: six members, each a no-op as it stands, which together is "none"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robustmm.types import LossTerm

if TYPE_CHECKING:
    from torch import nn

    from robustmm.balancing.epoch import EpochView
    from robustmm.balancing.view import StepView


@dataclass(frozen=True)
class EpochPlan:
    """What a balancer wants of the coming epoch.

    Args:
        indices: (N,) positions in the training part, with repetitions, in any order; None leaves the part as it is.
            Learning rates follow the share of the epoch that is done, so an epoch may be longer or shorter than others.
        keep: (N, M) bool: what each of the positions may show; None withholds nothing. A sample of which nothing would
            be left shows all that it has.
    """

    indices: Tensor | None = None
    keep: Tensor | None = None

    @classmethod
    def again(cls, samples: int, positions: Tensor, keep: Tensor) -> EpochPlan:
        """Every sample of the training part as it is, then some of them again, of which only a part is shown.

        Args:
            samples: Size of the training part.
            positions: (N,) int64; one may stand there several times.
            keep: (N, M) bool: what each of these may show.
        """
        whole = torch.ones(samples, keep.shape[1], dtype=torch.bool)
        return cls(torch.cat([torch.arange(samples), positions.cpu()]), torch.cat([whole, keep.cpu()]))


@dataclass(frozen=True)
class Update:
    """One optimiser update on a batch.

    Args:
        presence: (B, M) bool: what this update shows.
        trains: Modalities whose encoders it may change, None for all; parameters outside encoders always train.
    """

    presence: Tensor
    trains: Sequence[str] | None = None

    def freeze_others(self, groups: Mapping[str, Sequence[nn.Parameter]]) -> None:
        """Drop the gradients of encoders that this update does not train."""
        if self.trains is None:
            return
        for name, parameters in groups.items():
            if name not in self.trains:
                for parameter in parameters:
                    parameter.grad = None


class Balancer:
    """How the optimiser sees what a method computes: loss weights, routes of backward, gradients, updates, sampling."""

    def on_epoch_start(self, epoch: EpochView) -> EpochPlan | None:
        """Look at the training data before an epoch; may choose its samples."""
        return None

    def updates(self, presence: Tensor, modalities: Sequence[str]) -> Iterable[Update]:
        """The optimiser updates to make on this batch: one, with the drawn masks, as it stands."""
        return (Update(presence),)

    def modulate_features(self, level: int, features: Mapping[str, Tensor], view: StepView) -> Mapping[str, Tensor]:
        """Edit what enters a fusion, {modality: (B, D, ...)}; the view has no output yet."""
        return features

    def weigh(self, terms: Mapping[str, LossTerm], view: StepView) -> Mapping[str, LossTerm]:
        """Weigh, add or drop ``task`` terms before backward; of each batch where gradients are accumulated."""
        return terms

    def backward(self, terms: Mapping[str, LossTerm], view: StepView) -> None:
        """Add to the gradients: those of the plain sum, as it stands."""
        view.backward(total(terms))

    def modulate_gradients(self, view: StepView) -> None:
        """Edit gradients after they are complete, reduced over processes and unscaled, before clipping.

        Once an update; ``view`` is that of its last batch, and its scores count all of them.
        """

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold: JSON values and tensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""


def total(terms: Mapping[str, LossTerm]) -> Tensor:
    """The sum of the terms, a scalar."""
    return torch.stack([term.value for term in terms.values()]).sum()
