import math

import pytest
import torch
from pydantic import ValidationError
from robustmm_plugins.optim._warmup import WarmedSchedule
from robustmm_plugins.optim.cosine import Cosine
from robustmm_plugins.optim.multistep import Multistep, MultistepOptions
from robustmm_plugins.optim.one_cycle import OneCycle, OneCycleOptions
from robustmm_plugins.optim.poly import Poly
from robustmm_plugins.optim.step import Step, StepOptions
from torch.optim import SGD, Adam, lr_scheduler

from robustmm.engine.optim import apply_schedule

EPOCHS, STEPS = 7, 3
LR = 0.3


def torch_values(make, steps, optimizer_class=SGD):
    """Learning rate and momentum (Adam: first beta) of torch's scheduler at each of its steps."""
    extra = {"momentum": 0.9} if optimizer_class is SGD else {}
    optimizer = optimizer_class([torch.nn.Parameter(torch.zeros(1))], LR, **extra)
    scheduler = make(optimizer)
    values = [_values(optimizer)]
    for _ in range(steps - 1):
        optimizer.step()
        scheduler.step()
        values.append(_values(optimizer))
    return values


def _values(optimizer):
    (group,) = optimizer.param_groups
    return group["lr"], group["momentum"] if "momentum" in group else group["betas"][0]


def our_rates(schedule, steps=EPOCHS * STEPS):
    return [LR * schedule(step).lr_factor for step in range(steps)]


PER_EPOCH = {
    "step": (lambda: Step(EPOCHS, STEPS, 2, 0.5, 0), lambda o: lr_scheduler.StepLR(o, 2, 0.5)),
    "multistep": (
        lambda: Multistep(EPOCHS, STEPS, (2, 5), 0.1, 0),
        lambda o: lr_scheduler.MultiStepLR(o, [2, 5], 0.1),
    ),
    "cosine": (
        lambda: Cosine(EPOCHS, STEPS, 0.01, True, 0),
        lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS, eta_min=0.01 * LR),
    ),
    "poly": (lambda: Poly(EPOCHS, STEPS, 0.9, True, 0), lambda o: lr_scheduler.PolynomialLR(o, EPOCHS, 0.9)),
}
PER_STEP = {
    "cosine": (
        lambda: Cosine(EPOCHS, STEPS, 0.0, False, 0),
        lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS * STEPS),
    ),
    "poly": (lambda: Poly(EPOCHS, STEPS, 0.9, False, 0), lambda o: lr_scheduler.PolynomialLR(o, EPOCHS * STEPS, 0.9)),
}


@pytest.mark.parametrize("name", PER_EPOCH)
def test_schedule__per_epoch_equals_torch_and_is_constant_within_epochs(name):
    ours, theirs = PER_EPOCH[name]
    expected = [rate for rate, _ in torch_values(theirs, EPOCHS) for _ in range(STEPS)]
    assert our_rates(ours()) == pytest.approx(expected)


@pytest.mark.parametrize("name", PER_STEP)
def test_schedule__per_step_equals_torch(name):
    ours, theirs = PER_STEP[name]
    assert our_rates(ours()) == pytest.approx([rate for rate, _ in torch_values(theirs, EPOCHS * STEPS)])


@pytest.mark.parametrize("optimizer_class", [SGD, Adam])
@pytest.mark.parametrize("per_epoch", [False, True])
@pytest.mark.parametrize("epochs", [3, 7, 10, 40])
def test_one_cycle__equals_torch_in_rate_and_momentum(epochs, per_epoch, optimizer_class):
    positions = epochs if per_epoch else epochs * STEPS
    expected = torch_values(lambda o: lr_scheduler.OneCycleLR(o, LR, total_steps=positions), positions, optimizer_class)
    schedule = OneCycle(epochs, STEPS, **dict(OneCycleOptions(per_epoch=per_epoch)))
    extra = {"momentum": 0.9} if optimizer_class is SGD else {}
    optimizer = optimizer_class([torch.nn.Parameter(torch.zeros(1))], LR, **extra)
    for step in range(epochs * STEPS):
        apply_schedule(optimizer, schedule, step)
        assert _values(optimizer) == pytest.approx(expected[step // STEPS if per_epoch else step])


def test_one_cycle__has_the_published_corner_values():
    schedule = OneCycle(100, 5, **dict(OneCycleOptions(per_epoch=True)))
    lr = {epoch: 0.01 * schedule(epoch * 5).lr_factor for epoch in range(100)}
    # MMANet on segmentation: highest 0.01 at epoch 29, starts at 4e-4, ends at 4e-8
    assert (lr[0], lr[29], lr[99]) == (pytest.approx(4e-4), pytest.approx(0.01), pytest.approx(4e-8))
    momentum = [schedule(epoch * 5).momentum for epoch in (0, 29, 99)]
    assert momentum == pytest.approx([0.95, 0.85, 0.95])


def test_one_cycle__may_leave_momentum_alone():
    schedule = OneCycle(3, 2, **dict(OneCycleOptions(cycle_momentum=False)))
    assert schedule(2).momentum is None


@pytest.mark.parametrize("rise_share", [0.0, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("epochs", [1, 2, 10])
def test_one_cycle__is_finite_for_any_length(epochs, rise_share):
    schedule = OneCycle(epochs, 1, **dict(OneCycleOptions(rise_share=rise_share)))
    assert all(0 < schedule(step).lr_factor <= 1 + 1e-12 for step in range(epochs + 2))


SCHEDULES = {
    "constant": lambda warmup: WarmedSchedule(EPOCHS, STEPS, warmup),
    "step": lambda warmup: Step(EPOCHS, STEPS, 4, 0.5, warmup),
    "multistep": lambda warmup: Multistep(EPOCHS, STEPS, (4,), 0.5, warmup),
    "cosine": lambda warmup: Cosine(EPOCHS, STEPS, 0.0, False, warmup),
    "cosine per epoch": lambda warmup: Cosine(EPOCHS, STEPS, 0.0, True, warmup),
    "poly": lambda warmup: Poly(EPOCHS, STEPS, 0.9, False, warmup),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule__warm_up_rises_in_a_straight_line_to_the_configured_rate(name):
    schedule = SCHEDULES[name](2)
    factors = [schedule(step).lr_factor for step in range(2 * STEPS)]
    assert factors == pytest.approx([(step + 1) / (2 * STEPS) for step in range(2 * STEPS)])
    assert schedule(2 * STEPS).lr_factor == pytest.approx(1.0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule__depends_on_the_step_alone(name):
    forward, backward = SCHEDULES[name](1), SCHEDULES[name](1)
    there = [forward(step) for step in range(EPOCHS * STEPS)]
    back = [backward(step) for step in reversed(range(EPOCHS * STEPS))]
    assert there == back[::-1]


def test_cosine__runs_over_what_warm_up_leaves():
    schedule = Cosine(6, 2, 0.0, False, 2)
    assert schedule(8).lr_factor == pytest.approx(0.5)  # half of steps 4 to 12
    assert schedule(12).lr_factor == pytest.approx(0.0)
    assert schedule(11).lr_factor == pytest.approx((1 + math.cos(math.pi * 7 / 8)) / 2)


def test_schedule__warm_up_longer_than_training_only_rises():
    schedule = Cosine(2, 3, 0.0, False, 5)
    factors = [schedule(step).lr_factor for step in range(6)]
    assert factors == pytest.approx([(step + 1) / 15 for step in range(6)])


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        (MultistepOptions, {"milestones": (5, 2)}, r"must rise, got \[5, 2\]"),
        (MultistepOptions, {}, "Field required"),
        (StepOptions, {"step_epochs": 0}, "greater than 0"),
        (StepOptions, {"step_epochs": 1, "warmup_epochs": -1}, "greater than or equal to 0"),
        (OneCycleOptions, {"start_divisor": 0.5}, "greater than or equal to 1"),
    ],
)
def test_schedule__refuses_impossible_options(options, given, message):
    with pytest.raises(ValidationError, match=message):
        options(**given)
