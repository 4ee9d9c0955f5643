"""A few steps of the engine on tiny data, with a balancer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from robustmm import distributed
from robustmm.balancing.balancer import Balancer
from robustmm.balancing.epoch import EpochView
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
        heads: Whether the method has a head per modality for the balancer.
        accumulate: Batches of an update: the samples of a step in as many parts.
        norm: Whether encoders have BatchNorm. Without it samples do not depend on each other, and a step shared out
            over batches or processes must be the step on all samples.
    """

    def __init__(
        self,
        setting: Setting,
        balancer: Balancer,
        *,
        names: Sequence[str] | None = None,
        seed: int = 0,
        heads: bool = False,
        accumulate: int = 1,
        norm: bool = True,
    ) -> None:
        seed_cpu(0)
        self.setting, self.balancer, self.names = setting, balancer, tuple(names or setting.names)
        self.accumulate = accumulate
        parts = blueprint(setting, names=self.names, norm=norm)
        self.method = WithAuxiliary(parts)
        if heads:
            self.method.unimodal_heads = parts.make_heads(self.method.trunk)
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
            self._step(self.context, step, presence(step))

    def _step(self, context: StepContext, step: int, presence: Tensor) -> None:
        rows = torch.arange(SIZE).chunk(distributed.world_size())[distributed.rank()]  # this process's share
        data = _rows(batch(self.setting, seed=step, names=self.names), rows)
        train_step(context, _in_parts(data, self.accumulate), presence[rows])

    def _begin_epoch(self) -> None:
        whole = _joined([batch(self.setting, seed=seed, names=self.names) for seed in range(STEPS_PER_EPOCH)])
        view = EpochView(
            method=self.method,
            clock=self.context.clock,
            groups=self.context.groups,
            samples=SIZE * STEPS_PER_EPOCH,
            batches=partial(_at, whole),
            held_out=partial(_at, batch(self.setting, seed=1000, names=self.names)),
            evaluate=held_out(self.method, self.setting),
            trial=self._try,
            forget=self._forget,
            all_reduce=distributed.all_reduce_sum,
            gather=distributed.gather_rows,
            seed=self.context.seed,
        )
        plan = self.balancer.on_epoch_start(view)
        if plan is not None and plan.indices is not None:
            chosen, count = plan.indices, SIZE * STEPS_PER_EPOCH
            fits = plan.keep is None or (plan.keep.shape == (len(chosen), self.setting.count))
            require(fits, f"EpochPlan.keep must be (positions, modalities), got {plan.keep}")
            inside = chosen.dim() == 1 and len(chosen) > 0 and not (chosen < 0).any() and not (chosen >= count).any()
            require(inside, f"EpochPlan.indices must be positions 0..{count - 1}, got {chosen}")
            if self.setting.count == 1:
                same = chosen.sort().values.equal(torch.arange(count))
                require(same, "with one modality EpochPlan.indices must be every sample once, or None")

    def _try(self, balancer: Balancer, *, epochs: int, indices: Tensor | None = None) -> Method:
        """See `robustmm.Trial`: steps on complete samples."""
        method = copy.deepcopy(self.method)
        optimizer = cast(Optimizer, _fabric().setup_optimizers(SGD(method.parameters(), lr=0.1, momentum=0.9)))
        groups = method.trunk.parameter_groups()
        trial = replace(self.context, method=method, balancer=balancer, optimizer=optimizer, groups=groups)
        with torch.random.fork_rng(devices=[]):
            for step in range(epochs * STEPS_PER_EPOCH):
                seed_cpu(step)
                self._step(trial, step, torch.ones(SIZE, self.setting.count, dtype=torch.bool))
        return method

    def _forget(self, parameters: Iterable[nn.Parameter]) -> None:
        for parameter in parameters:
            self.context.optimizer.state.pop(parameter, None)

    def weights(self, *, heads: bool = True) -> dict[str, Tensor]:
        """Parameters and buffers, copied; with ``heads=False`` without those of the balancer's heads."""
        state = self.method.state_dict().items()
        return {name: value.clone() for name, value in state if heads or not name.startswith("unimodal_heads.")}

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


def _joined(batches: Sequence[Batch]) -> Batch:
    inputs = {name: torch.cat([one.inputs[name] for one in batches]) for name in batches[0].modalities}
    observed, target = (torch.cat([getattr(one, name) for one in batches]) for name in ("observed", "target"))
    ids = tuple(f"sample_{row}" for row in range(len(target)))
    return Batch(inputs, observed, target, ids, torch.arange(len(target)))


def _rows(whole: Batch, rows: Tensor) -> Batch:
    inputs = {name: x[rows] for name, x in whole.inputs.items()}
    ids = tuple(whole.ids[row] for row in rows.tolist())
    return Batch(inputs, whole.observed[rows], whole.target[rows], ids, whole.index[rows])


def _in_parts(data: Batch, count: int) -> list[Batch]:
    chunks: Sequence[Tensor] = torch.arange(len(data)).chunk(count)
    return [data] if count == 1 else [_rows(data, rows) for rows in chunks]


def _at(whole: Batch, indices: Tensor | None = None) -> Iterator[Batch]:
    chosen = torch.arange(len(whole)) if indices is None else indices
    chosen = chosen[distributed.rank() :: distributed.world_size()]
    batches: Sequence[Tensor] = torch.split(chosen, SIZE)
    return (_rows(whole, rows) for rows in batches if len(rows))


def mixed(setting: Setting) -> Presence:
    """All combinations in every step."""
    return lambda step: mixed_presence(setting.count)


def showing(setting: Setting, columns: Sequence[int]) -> Presence:
    """The modalities of ``columns`` in every sample, and no other."""
    mask = torch.zeros(SIZE, setting.count, dtype=torch.bool)
    mask[:, list(columns)] = True
    return lambda step: mask
