"""A few steps of the engine on tiny data, with a balancer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from robustmm.balancing.balancer import Balancer
from robustmm.balancing.view import EpochView
from robustmm.engine.step import StepContext, train_step
from robustmm.methods.method import Blueprint, Method
from robustmm.testing.contract import require, seed_cpu
from robustmm.testing.rehearsal import held_out
from robustmm.testing.tiny import SIZE, Setting, batch, blueprint, clock, mixed_presence
from robustmm.types import Batch, Clock, LossTerm, Output

STEPS_PER_EPOCH = 2
#: Steps of a rehearsed run: four epochs.
STEPS = 8
Presence = Callable[[int], Tensor]


class WithAuxiliary(Method):
    """Plain training, and an auxiliary term that alone trains one parameter of its own."""

    def __init__(self, parts: Blueprint) -> None:
        super().__init__(parts)
        self.own = nn.Parameter(torch.ones(3))

    def losses(self, output: Output, batch: Batch, clock: Clock) -> dict[str, LossTerm]:
        """See `Method.losses`."""
        return super().losses(output, batch, clock) | {"own": LossTerm(self.own.square().sum(), "auxiliary")}


@cache
def _fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


class Run:
    """A few steps of the engine on tiny data.

    Args:
        setting: Number of modalities, and global or dense.
        balancer: Under test, or the core's own, which does nothing.
        names: Another order of the columns.
        seed: Of the run; what a balancer draws depends on it.
    """

    def __init__(
        self, setting: Setting, balancer: Balancer, *, names: Sequence[str] | None = None, seed: int = 0
    ) -> None:
        seed_cpu(0)
        self.setting, self.balancer, self.names = setting, balancer, tuple(names or setting.names)
        self.method = WithAuxiliary(blueprint(setting, names=self.names))
        optimizer = SGD(self.method.parameters(), lr=0.1, momentum=0.9)
        self.context = StepContext(
            fabric=_fabric(),
            method=self.method,
            balancer=balancer,
            optimizer=cast(Optimizer, _fabric().setup_optimizers(optimizer)),
            groups=self.method.trunk.parameter_groups(),
            clip_norm=None,
            seed=seed,
            clock=clock(epochs=STEPS // STEPS_PER_EPOCH, steps_per_epoch=STEPS_PER_EPOCH),
        )

    def train(self, presence: Presence, *, start: int = 0, stop: int = STEPS) -> None:
        """Make steps; ``presence`` gives the mask of each."""
        self.method.train()
        for step in range(start, stop):
            epoch, place = divmod(step, STEPS_PER_EPOCH)
            self.context.clock = replace(self.context.clock, epoch=epoch, step=step)
            if place == 0:
                self._begin_epoch()
            seed_cpu(step)
            train_step(self.context, batch(self.setting, seed=step, names=self.names), presence(step))

    def _begin_epoch(self) -> None:
        parts = [batch(self.setting, seed=seed, names=self.names) for seed in range(STEPS_PER_EPOCH)]
        view = EpochView(
            method=self.method,
            clock=self.context.clock,
            groups=self.context.groups,
            batches=lambda: iter(parts),
            evaluate=held_out(self.method, self.setting),
            seed=self.context.seed,
        )
        plan = self.balancer.on_epoch_start(view)
        if plan is not None and plan.indices is not None:
            chosen, count = plan.indices, SIZE * STEPS_PER_EPOCH
            inside = chosen.dim() == 1 and len(chosen) > 0 and not (chosen < 0).any() and not (chosen >= count).any()
            require(inside, f"EpochPlan.indices must be positions 0..{count - 1}, got {chosen}")
            if self.setting.count == 1:
                same = chosen.sort().values.equal(torch.arange(count))
                require(same, "with one modality EpochPlan.indices must be every sample once, or None")

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers, copied."""
        return {name: value.clone() for name, value in self.method.state_dict().items()}

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "weights": self.method.state_dict(),
            "optimizer": self.context.optimizer.state_dict(),
            "balancer": self.balancer.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.method.load_state_dict(state["weights"])
        self.context.optimizer.load_state_dict(state["optimizer"])
        self.balancer.load_state_dict(state["balancer"])


def mixed(setting: Setting) -> Presence:
    """All combinations in every step."""
    return lambda step: mixed_presence(setting.count)


def showing(setting: Setting, columns: Sequence[int]) -> Presence:
    """The modalities of ``columns`` in every sample, and no other."""
    mask = torch.zeros(SIZE, setting.count, dtype=torch.bool)
    mask[:, list(columns)] = True
    return lambda step: mask
