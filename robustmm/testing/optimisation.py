"""What optimisers and schedules promise."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from robustmm.engine.optim import Schedule, apply_schedule
from robustmm.registry import Component
from robustmm.testing.contract import (
    build,
    check,
    during,
    require,
    require_equal_states,
    require_finite,
    through_checkpoint,
)

#: (epochs, steps per epoch) of the trainings that a schedule is asked about.
TRAININGS = ((10, 7), (2, 1), (1, 1))


def parameters() -> list[nn.Parameter]:
    """Three parameters; the last one is frozen by a balancer in these checks."""
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(4, 3, generator=generator)) for _ in range(3)]


def descend(optimizer: Optimizer, weights: list[nn.Parameter], steps: int) -> None:
    """Steps on a sum of squares; the last parameter gets no gradient."""
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(torch.stack([weight.square().sum() for weight in weights[:-1]]).sum())
        optimizer.step()


def copies(weights: list[nn.Parameter]) -> list[Tensor]:
    """Values, copied."""
    return [weight.detach().clone() for weight in weights]


@check("optimizer")
def steps_along_gradients_alone(component: Component) -> None:
    """A step changes what has a gradient and nothing else, which balancers that freeze encoders rely on."""
    weights = parameters()
    optimizer: Optimizer = build(component, parameters=weights)
    before = copies(weights)
    descend(optimizer, weights, steps=1)
    changed = [not torch.equal(old, new) for old, new in zip(before, copies(weights), strict=True)]
    require(all(changed[:-1]), "a parameter with a gradient does not change")
    require(not changed[-1], "a parameter without a gradient changes")
    for weight in weights:
        require_finite(weight, "a parameter after a step")
    require("lr" in optimizer.param_groups[0], "param_groups have no 'lr' for a schedule to set")


@check("optimizer")
def resumed_run_equals_uninterrupted(component: Component) -> None:
    """The state survives a checkpoint, and steps go on as if nothing had happened."""
    weights = parameters()
    optimizer: Optimizer = build(component, parameters=weights)
    descend(optimizer, weights, steps=2)
    saved = through_checkpoint(optimizer.state_dict())
    others = [nn.Parameter(weight.detach().clone()) for weight in weights]
    resumed: Optimizer = build(component, parameters=others)
    resumed.load_state_dict(saved)
    descend(optimizer, weights, steps=2)
    descend(resumed, others, steps=2)
    require_equal_states(copies(others), copies(weights), "weights of a resumed optimiser and of one that went on")


@check("schedule")
def factors_are_finite(component: Component) -> None:
    """Over a training, however short, factors are finite, at least 0 and not all 0; momenta lie in [0, 1)."""
    for epochs, steps_per_epoch in TRAININGS:
        with during(f"{epochs} epochs of {steps_per_epoch} steps"):
            schedule: Schedule = build(component, epochs=epochs, steps_per_epoch=steps_per_epoch)
            values = [schedule(step) for step in range(epochs * steps_per_epoch)]
            for step, value in enumerate(values):
                good = math.isfinite(value.lr_factor) and value.lr_factor >= 0
                require(good, f"the factor of step {step} is {value.lr_factor}")
                good = value.momentum is None or 0 <= value.momentum < 1
                require(good, f"the momentum of step {step} is {value.momentum}")
            require(any(value.lr_factor > 0 for value in values), "every factor is 0")


@check("schedule")
def values_depend_on_the_step_alone(component: Component) -> None:
    """Asked in any order and any number of times a step has one value, so that resuming needs no state."""
    for epochs, steps_per_epoch in TRAININGS:
        with during(f"{epochs} epochs of {steps_per_epoch} steps"):
            schedule: Schedule = build(component, epochs=epochs, steps_per_epoch=steps_per_epoch)
            steps = range(epochs * steps_per_epoch)
            forwards = [schedule(step) for step in steps]
            backwards = [schedule(step) for step in reversed(steps)][::-1]
            fresh: Schedule = build(component, epochs=epochs, steps_per_epoch=steps_per_epoch)
            require(forwards == backwards, "values depend on what was asked before")
            require(fresh(steps[-1]) == forwards[-1], "a new schedule, as in a resumed run, gives another value")


@check("schedule")
def values_reach_optimisers(component: Component) -> None:
    """Learning rate and momentum can be set in optimisers with either kind of momentum."""
    epochs, steps_per_epoch = TRAININGS[0]
    schedule: Schedule = build(component, epochs=epochs, steps_per_epoch=steps_per_epoch)
    for optimizer in (SGD(parameters(), lr=0.5, momentum=0.9), Adam(parameters(), lr=0.5)):
        for step in (0, steps_per_epoch, epochs * steps_per_epoch - 1):
            rate = apply_schedule(optimizer, schedule, step)
            expected = 0.5 * schedule(step).lr_factor
            require(math.isclose(rate, expected), f"step {step}: learning rate {rate}, expected {expected}")
