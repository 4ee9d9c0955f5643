"""Training a copy of the model for a while, to see what would come of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from robustmm import distributed
from robustmm.balancing.balancer import Balancer
from robustmm.data.loaders import PartLoader, in_groups
from robustmm.engine.interrupt import Interrupt
from robustmm.engine.optim import apply_schedule, scheduled_step
from robustmm.engine.recipe import Recipe
from robustmm.engine.step import StepContext, train_step
from robustmm.masks import CombinationSampler
from robustmm.methods.method import Method
from robustmm.seeding import generator_for, seed_torch


def run_trial(
    run: StepContext,
    balancer: Balancer,
    *,
    recipe: Recipe,
    sampler: CombinationSampler,
    loader: PartLoader,
    interrupt: Interrupt,
    epochs: int,
    indices: Tensor | None = None,
) -> Method:
    """Train a copy of ``run.method``; see `robustmm.Trial`.

    Its optimiser begins anew. Learning rate, order, masks and dropout are those that the run itself would have in these
    epochs, so that trials with different balancers are compared on the same; behind the last epoch of the run the rate
    stays where it ended. The model, its optimiser, the loss scale and torch's generators are as before afterwards.

    Raises:
        KeyboardInterrupt: asked to stop; the run resumes from its last checkpoint and tries again.
    """
    method = copy.deepcopy(run.method).train()
    made = recipe.make_optimizer([p for p in method.parameters() if p.requires_grad])
    optimizer = cast(Optimizer, run.fabric.setup_optimizers(made))
    schedule = recipe.make_schedule(recipe.epochs, run.clock.steps_per_epoch)
    planned = -(-loader.steps_per_epoch(indices) // recipe.accumulate)
    trial = replace(run, method=method, balancer=balancer, optimizer=optimizer, groups=method.trunk.parameter_groups())
    with _left_as_it_was(run):
        for epoch in range(run.clock.epoch, run.clock.epoch + epochs):
            trial.clock = replace(trial.clock, epoch=epoch)
            groups = in_groups(loader.training(epoch, indices=indices), recipe.accumulate)
            for done, batches in enumerate(groups):
                step, rank = trial.clock.step, distributed.rank()
                seed_torch(recipe.seed, step, rank)
                masks = generator_for(recipe.seed, "masks", step, rank)
                presence = torch.cat([sampler(batch.offered, masks) for batch in batches])
                place = min(scheduled_step(trial.clock, done, planned), recipe.epochs * run.clock.steps_per_epoch - 1)
                apply_schedule(optimizer, schedule, place)
                train_step(trial, [batch.to(run.fabric.device) for batch in batches], presence)
                trial.clock = replace(trial.clock, step=step + 1)
                if interrupt.requested and not distributed.is_parallel():
                    raise KeyboardInterrupt
            distributed.average_buffers(method)
    return method


@contextmanager
def _left_as_it_was(run: StepContext) -> Iterator[None]:
    """Give torch's generators and the loss scale of float16 back as they were."""
    devices = [run.fabric.device] if run.fabric.device.type == "cuda" else []
    precision = run.fabric.strategy.precision
    scale = precision.state_dict()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        precision.load_state_dict(scale)
