"""One training step: the place where method, balancer and optimiser meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from robustmm import distributed
from robustmm.balancing.balancer import Balancer
from robustmm.balancing.view import Apart, StepView
from robustmm.methods.method import Method
from robustmm.types import Batch, Clock, LossTerm


@dataclass
class StepContext:
    """What a step needs.

    Args:
        fabric: Device, precision, processes.
        method: On the device.
        balancer: How the optimiser sees the losses.
        optimizer: Over `parameters`, set up by Fabric.
        groups: Modality -> encoder parameters.
        clip_norm: Largest gradient norm; None does not clip.
        seed: The run's seed.
        clock: Where training stands; the loop moves it.
    """

    fabric: Fabric
    method: Method
    balancer: Balancer
    optimizer: Optimizer
    groups: Mapping[str, Sequence[nn.Parameter]]
    clip_norm: float | None
    seed: int
    clock: Clock

    def views(self, batches: Sequence[Batch], presence: Tensor) -> list[StepView]:
        """What the balancer sees of each batch of an update; ``presence`` (N, M) covers all of them in their order."""
        shown: Sequence[Tensor] = torch.split(presence, [len(batch) for batch in batches])
        apart: Apart = {}
        views: list[StepView] = []
        for batch, own in zip(batches, shown, strict=True):
            view = StepView(
                method=self.method,
                batch=batch,
                shown=own,
                clock=self.clock,
                groups=self.groups,
                run_backward=self.fabric.backward,
                all_reduce=distributed.all_reduce_sum,
                processes=distributed.world_size(),
                seed=self.seed,
                whole=presence if len(batches) > 1 else None,
                earlier=views[-1] if views else None,
                apart=apart,
            )
            views.append(view)
        return views

    def complete_gradients(self, apart: Apart) -> None:
        """Average gradients over processes and undo the loss scale of float16, once, before anything edits them.

        Args:
            apart: Gradients kept apart, completed likewise and in place.
        """
        distributed.average_gradients(self.method.parameters(), apart)
        precision = self.fabric.strategy.precision
        scale = _loss_scale(precision)
        for parameter, gradient in apart.items():
            if scale is not None:  # one that has overflowed makes the optimiser skip this step too
                overflow = gradient * 0
                parameter.grad = overflow if parameter.grad is None else parameter.grad.add_(overflow)
        # The scaler remembers by identity what it has unscaled, and steps Fabric's inner optimiser: through the wrapper
        # it would divide a second time.
        inner = getattr(self.optimizer, "optimizer", self.optimizer)
        precision.unscale_gradients(inner)
        if scale is not None:
            for gradient in apart.values():
                gradient.div_(scale)

    def clip_gradients(self) -> None:
        """Bound the norm of all gradients together."""
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.method.parameters(), self.clip_norm)


def _loss_scale(precision: object) -> Tensor | None:
    """The factor of float16 losses; None in other precisions."""
    scaler = getattr(precision, "scaler", None)
    if scaler is None or not scaler.is_enabled():
        return None
    scale: Tensor | None = scaler._scale  # public get_scale() waits for the device
    return scale


def train_step(run: StepContext, batches: Sequence[Batch], presence: Tensor) -> Mapping[str, LossTerm]:
    """Update the weights from one batch, or from several whose gradients are accumulated.

    Args:
        run: See `StepContext`.
        batches: On the device.
        presence: (N, M) bool: what the method is shown of all batches in their order; it may lie on the CPU.

    Returns:
        The weighed loss terms of the last update without their graph, still on the device; means over its samples.
    """
    terms: Mapping[str, LossTerm] = {}
    for update in run.balancer.updates(presence, batches[0].modalities):
        run.optimizer.zero_grad(set_to_none=True)
        views = run.views(batches, update.presence)
        terms = _sum([_accumulate(run, view) for view in views])
        run.complete_gradients(views[-1].apart)
        run.balancer.modulate_gradients(views[-1])
        update.freeze_others(run.groups)
        run.clip_gradients()
        run.optimizer.step()
    return terms


def _accumulate(run: StepContext, view: StepView) -> Mapping[str, LossTerm]:
    """Add one batch's gradients; return its weighed terms, each times the batch's share of the update."""
    with run.fabric.autocast():
        edit = partial(_edit, run.balancer, view)
        view.output = run.method.train_output(view.batch, view.shown, edit)
        terms = run.balancer.weigh(run.method.losses(view.output, view.batch, run.clock), view)
    run.balancer.backward(terms, view)
    view.release_graph()
    # A balancer may have kept the graph for a second pass; with the terms it would live until the next step is done.
    values = {name: LossTerm(term.value.detach(), term.role) for name, term in terms.items()}
    if view.whole is None:
        return values
    return {name: LossTerm(term.value * view.share, term.role) for name, term in values.items()}


def _edit(
    balancer: Balancer, view: StepView, level: int, features: Mapping[str, Tensor], presence: Tensor
) -> Mapping[str, Tensor]:
    """A trunk's call as the balancer's hook."""
    return balancer.modulate_features(level, features, view)


def _sum(parts: Sequence[Mapping[str, LossTerm]]) -> Mapping[str, LossTerm]:
    """Terms added up by name; a batch without a term counts as 0."""
    if len(parts) == 1:
        return parts[0]
    total: dict[str, LossTerm] = {}
    for terms in parts:
        for name, term in terms.items():
            value = term.value if name not in total else total[name].value + term.value
            total[name] = LossTerm(value, term.role)
    return total
