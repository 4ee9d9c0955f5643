"""The contract of a method. As it stands, `Method` is plain joint training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from robustmm.models.head import Head
from robustmm.models.trunk import Features, Trunk
from robustmm.tasks.task import Metrics, Task
from robustmm.types import Batch, Clock, Combination, FeatureEdit, LossTerm, Modality, Output


class MakeTrunk(Protocol):
    """A new trunk with fitted scalers."""

    def __call__(self, *, only: Sequence[str] | None = None, fused: bool = True) -> Trunk:
        """Build it.

        Args:
            only: Modalities of the trunk, in column order; None means all.
            fused: Whether it fuses; otherwise encoders stand side by side, and no level is fused.
        """


class MakeHead(Protocol):
    """A new head of the configured kind."""

    def __call__(self, channels: tuple[int, ...], outputs: int | None = None) -> Head:
        """Build it.

        Args:
            channels: Of the levels that it reads.
            outputs: Channels of what it gives; None means as many as the task's logits have.
        """


@dataclass(frozen=True)
class Blueprint:
    """What a method builds its networks from: fresh parts of the configured kind, as many as it needs.

    Args:
        modalities: In column order.
        task: Shared by every network of the run.
        make_trunk: See `MakeTrunk`.
        make_head: See `MakeHead`.
        samples: Size of the training part.
    """

    modalities: tuple[Modality, ...]
    task: Task
    make_trunk: MakeTrunk
    make_head: MakeHead
    samples: int = 0

    def alone(self, name: str) -> Blueprint:
        """The blueprint of networks that have one modality."""
        own = tuple(modality for modality in self.modalities if modality.name == name)
        return replace(self, modalities=own, make_trunk=partial(self.make_trunk, only=(name,)))

    def make_heads(self, trunk: Trunk, outputs: int | None = None) -> nn.ModuleDict:
        """A new head per modality, for the levels that the trunk's encoders give; ``outputs`` as for `MakeHead`."""
        make: Callable[[tuple[int, ...]], Head] = self.make_head
        if outputs is not None:
            make = partial(self.make_head, outputs=outputs)
        return nn.ModuleDict({name: make(channels) for name, channels in trunk.feature_channels.items()})


class Evaluate(Protocol):
    """Scores on the held-out part of training, never on test."""

    def __call__(self, combinations: list[Combination]) -> Mapping[Combination, Metrics]:
        """Metrics of each combination; one pass over the data, modalities encoded once."""


class FitContext(Protocol):
    """What a method can ask of the run before training starts."""

    def train(self, name: str, method: Method, *, epochs: int | None = None) -> None:
        """Train another network by the run's own recipe, on complete samples, and keep it under ``name``.

        It may have some of the run's modalities alone, as of `Blueprint.alone`. Samples that have none of them stay out
        of its loss, if that is `Method.losses`, and of its scores.

        A resumed run loads it instead of training it again.

        Args:
            name: File name in the run's checkpoint folder.
            method: Trained in place; its best epoch on validation is kept.
            epochs: None means as many as the run itself.
        """

    def load(self, path: str, method: Method) -> None:
        """Load weights from a checkpoint file into ``method``."""


class Method(nn.Module):
    """What is computed: modules, teachers, auxiliary heads, losses.

    Attributes:
        sampler: The combination sampler that fits the method; the configuration may name another.
        unimodal_heads: Modality -> a head on that modality's features, for balancers that require ``unimodal_heads``;
            None where none does. They train with everything else and take no part in prediction.
    """

    sampler: ClassVar[str] = "complete"
    unimodal_heads: nn.ModuleDict | None

    def __init__(self, blueprint: Blueprint, *, trunk: Trunk | None = None, head: Head | None = None) -> None:
        """Build the network.

        Args:
            blueprint: See `Blueprint`.
            trunk: Instead of one of the configured kind.
            head: Instead of one of the configured kind for the trunk's fused levels.
        """
        super().__init__()
        self.trunk = blueprint.make_trunk() if trunk is None else trunk
        self.head = blueprint.make_head(self.trunk.fused_channels) if head is None else head
        self.task = blueprint.task
        self.modalities = tuple(modality.name for modality in blueprint.modalities)
        self.unimodal_heads = None

    def train_output(self, batch: Batch, presence: Tensor, edit: FeatureEdit | None = None) -> Output:
        """The output that training is about; a method that knows more of a training sample than its inputs, such as its
        place in the part, overrides it. ``presence`` and ``edit`` as for `forward`.
        """
        output: Output = self(batch.inputs, presence, edit, size=self.task.target_size(batch.target))
        return output

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        presence: Tensor,
        edit: FeatureEdit | None = None,
        *,
        size: tuple[int, ...] = (),
    ) -> Output:
        """Predict.

        Args:
            inputs: Modality -> (B, ...), raw.
            presence: (B, M) bool, on the CPU or the inputs' device.
            edit: A balancer's edit of what enters each fusion.
            size: Spatial size of the target, () for global prediction.
        """
        features, fused = self.trunk(inputs, presence, edit)
        shown = presence.to(next(iter(inputs.values())).device, non_blocking=True)
        return self.readout(features, fused, shown, size)

    def readout(self, features: Features, fused: list[Tensor], presence: Tensor, size: tuple[int, ...]) -> Output:
        """Fused levels to logits and extras. Probes and evaluation call it with re-fused levels."""
        return self.output(fused, presence, features, fused, size)

    def output(
        self, levels: list[Tensor], presence: Tensor, features: Features, fused: list[Tensor], size: tuple[int, ...]
    ) -> Output:
        """What the head makes of ``levels``, which are ``fused`` or what a method made of them.

        In training with the head's side outputs; see `Head.scales`.
        """
        logits, *coarser = self.head.scales(levels, size) if self.training else [self.head(levels, size)]
        return Output(logits, presence, features, fused, coarser=coarser)

    def losses(self, output: Output, batch: Batch, clock: Clock) -> dict[str, LossTerm]:
        """The summands of the objective, each a scalar multiplied by its weight.

        A network of some of the run's modalities, see `Blueprint.alone`, meets samples that have none of them: they
        stay out of the task's loss.
        """
        seen = batch.observed.any(dim=1)  # on the CPU, so that asking does not wait for a device
        keep = None if bool(seen.all()) else seen.to(output.logits.device)
        return {"task": LossTerm(self.task.loss_over(output.scales, batch.target, keep), "task")}

    def uncertainty(self, logits: Tensor) -> Tensor | None:
        """How unsure predictions are, from the logits that were predicted; see `Task.uncertainty`, which it is as it
        stands. A method whose logits say more overrides it.
        """
        return self.task.uncertainty(logits)

    def on_fit_start(self, fit: FitContext) -> None:
        """Train or load a teacher, build an index, fit latent codes."""

    def on_epoch_end(self, evaluate: Evaluate, clock: Clock) -> None:
        """Mine weak or hard combinations; ``clock.epoch`` is the epoch that has just ended."""

    def deployable(self) -> Method:
        """What is needed for prediction alone, without teachers and training heads; the same output in evaluation."""
        if self.unimodal_heads is None:
            return self
        deployed = copy.copy(self)  # shares every other part
        deployed._modules = {**self._modules, "unimodal_heads": None}
        return deployed

    def method_state(self) -> dict[str, Any]:
        """What a checkpoint must hold beside weights and buffers, as JSON values."""
        return {}

    def load_method_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `method_state` gave."""
