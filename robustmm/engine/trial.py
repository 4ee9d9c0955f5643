"""Training a copy of the model for a while, to see what would come of it."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from robustmm import distributed
from robustmm.balancing.balancer import Balancer
from robustmm.data.loaders import PartLoader, in_groups
from robustmm.engine.interrupt import Interrupt
from robustmm.engine.optim import apply_schedule
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

    Its optimiser begins anew, at the learning rate that the schedule has reached and keeps. Order, masks and dropout
    are those that the run itself would draw for these epochs, so that trials with different balancers are compared on
    the same. The model, its optimiser and torch's generators are as before afterwards.

    Raises:
        KeyboardInterrupt: asked to stop; the run resumes from its last checkpoint and tries again.
    """
    method = copy.deepcopy(run.method).train()
    made = recipe.make_optimizer([p for p in method.parameters() if p.requires_grad])
    optimizer = cast(Optimizer, run.fabric.setup_optimizers(made))
    apply_schedule(optimizer, recipe.make_schedule(recipe.epochs, run.clock.steps_per_epoch), run.clock.step)
    trial = replace(run, method=method, balancer=balancer, optimizer=optimizer, groups=method.trunk.parameter_groups())
    devices = [method_device] if (method_device := next(method.parameters()).device).type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        for epoch in range(run.clock.epoch, run.clock.epoch + epochs):
            for batches in in_groups(loader.training(epoch, indices=indices), recipe.accumulate):
                step, rank = trial.clock.step, distributed.rank()
                seed_torch(recipe.seed, step, rank)
                masks = generator_for(recipe.seed, "masks", step, rank)
                presence = torch.cat([sampler(batch.offered, masks) for batch in batches])
                train_step(trial, [batch.to(run.fabric.device) for batch in batches], presence)
                trial.clock = replace(trial.clock, step=step + 1)
                if interrupt.requested and not distributed.is_parallel():
                    raise KeyboardInterrupt
    return method
