"""Epochs that a balancer has a say in: what is shown, how long they are, accumulated batches, resuming."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from robustmm import Balancer, EpochPlan, Method, RunFailed, Schedule
from robustmm.engine import checkpoint

SAMPLES = 18


class Notes(Balancer):
    """Writes down what every update shows of every sample."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, int, tuple[bool, ...]]] = []

    def weigh(self, terms, view):
        rows = zip(view.batch.index.tolist(), map(tuple, view.shown.tolist()), strict=True)
        self.shown += [(view.clock.epoch, place, row) for place, row in rows]
        return terms


class Withholds(Notes):
    """Every sample once, and again with one modality alone, another one each epoch."""

    def on_epoch_start(self, epoch):
        column = epoch.clock.epoch % 3
        indices = torch.cat([torch.arange(SAMPLES), torch.arange(SAMPLES)])
        keep = torch.ones(2 * SAMPLES, 3, dtype=torch.bool)
        keep[SAMPLES:] = torch.arange(3) == column
        return EpochPlan(indices, keep)


class Planned(Balancer):
    """A plan that is given."""

    def __init__(self, plan) -> None:
        self.plan = plan

    def on_epoch_start(self, epoch):
        return self.plan


class Places(Schedule):
    """The place in the schedule is the learning rate."""

    def __call__(self, step):
        return super().__call__(step)._replace(lr_factor=float(step))


def rates(optimizer_rates):
    """An optimiser that writes down the rate of each of its steps."""

    def make(parameters):
        optimizer = torch.optim.SGD(parameters, lr=1.0)
        hook = lambda own, *_: optimizer_rates.append(own.param_groups[0]["lr"])  # noqa: E731
        optimizer.register_step_pre_hook(hook)
        return optimizer

    return make


def without_norm(blueprint) -> Method:
    """No layer that couples the samples of a batch."""
    method = Method(blueprint)
    for encoder in method.trunk.encoders.values():
        layers = encoder.stages[0]
        layers[1] = nn.Identity()
    return method


def interrupted(trainer, fit) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(trainer)


# What is shown


def test_keep__bounds_what_the_sampler_shows(setup, fit, tmp_path):
    trainer = fit(setup(Method, Withholds).trainer(tmp_path))
    assert len(trainer.balancer.shown) == 3 * 2 * SAMPLES
    for epoch in range(3):
        alone = tuple(column == epoch for column in range(3))
        own = [row for at, _, row in trainer.balancer.shown if at == epoch]
        assert sum(row == alone for row in own) >= SAMPLES
        assert any(sum(row) > 1 for row in own)


def test_keep__complete_samples_show_all_that_they_may(setup, fit, tmp_path):
    trainer = fit(setup(Method, Withholds, sampler="complete", recipe={"epochs": 1}).trainer(tmp_path))
    wanted = [(0, place, row) for place in range(SAMPLES) for row in ((True, False, False), (True, True, True))]
    assert sorted(trainer.balancer.shown) == wanted


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("stop_after", [1, 7, 13])
def test_keep__survives_an_interruption_in_mid_epoch(setup, fit, same_state, tmp_path, accumulate, stop_after):
    make = setup(Method, Withholds, recipe={"accumulate": accumulate}).trainer
    whole = fit(make(tmp_path / "whole"))
    first = make(tmp_path / "run", stop_after=stop_after)
    interrupted(first, fit)
    second = fit(make(tmp_path / "run"), resume=True)
    same_state(whole, second)
    assert first.balancer.shown + second.balancer.shown == whole.balancer.shown


def test_plan__is_not_kept_beyond_its_epoch(setup, fit, tmp_path):
    trainer = fit(setup(Method, Withholds).trainer(tmp_path))
    assert checkpoint.load(trainer.last)["plan"] == {"indices": None, "keep": None}


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (EpochPlan(torch.tensor([0, 18])), "1 indices are no positions 0 to 17, the first is 18"),
        (EpochPlan(torch.tensor([-1, -2])), "2 indices are no positions 0 to 17, the first is -1"),
        (EpochPlan(torch.tensor([], dtype=torch.int64)), "indices must be int64 (N,), got torch.int64 (0,)"),
        (EpochPlan(torch.tensor([1.0])), "indices must be int64 (N,), got torch.float32 (1,)"),
        (
            EpochPlan(keep=torch.ones(17, 3).bool()),
            "keep must be bool (18, 3), for every sample, as indices is None; got",
        ),
        (
            EpochPlan(torch.tensor([3]), torch.ones(1, 3)),
            "keep must be bool (1, 3), for each of the indices; got",
        ),
        ((torch.tensor([3]), None), "gave tuple; it must give a robustmm.EpochPlan or None"),
    ],
)
def test_plan__that_cannot_be_had_is_refused(setup, fit, tmp_path, plan, message):
    with pytest.raises(RunFailed) as caught:
        fit(setup(Method, partial(Planned, plan)).trainer(tmp_path))
    assert str(caught.value).startswith("on_epoch_start of Planned")
    assert message in str(caught.value)


# How long epochs are


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_schedule__begins_each_epoch_where_it_would_without_a_plan(setup, fit, tmp_path, times, accumulate):
    """18 samples in batches of 4: 5 batches, and 3 updates where two are accumulated."""
    found: list[float] = []
    recipe = {"make_optimizer": rates(found), "make_schedule": Places, "accumulate": accumulate}
    plan = EpochPlan(torch.arange(SAMPLES).repeat(times))
    trainer = fit(setup(Method, partial(Planned, plan), recipe=recipe).trainer(tmp_path))
    usual = 5 if accumulate == 1 else 3
    longer = len(found) // 3
    assert len(found) == trainer.context.clock.step == 3 * math.ceil(math.ceil(SAMPLES * times / 4) / accumulate)
    assert [found[epoch * longer] for epoch in range(3)] == [0, usual, 2 * usual]
    assert found == sorted(found)
    assert found[-1] == 3 * usual - 1
    if times == 1:
        assert found == list(range(3 * usual))


def test_schedule__of_a_shorter_epoch_skips_steps(setup, fit, tmp_path):
    found: list[float] = []
    recipe = {"make_optimizer": rates(found), "make_schedule": Places}
    fit(setup(Method, partial(Planned, EpochPlan(torch.arange(8))), recipe=recipe).trainer(tmp_path))
    assert found == [0, 2, 5, 7, 10, 12]


# Accumulated batches


@pytest.mark.parametrize("samples", [18, 17, 13, 12, 5])
@pytest.mark.parametrize("sampler", ["complete", "uniform"])
def test_accumulate__equals_one_batch_of_double_size(setup, fit, tmp_path, samples, sampler):
    """Uneven last groups too: every update is a mean over its samples."""
    options = {"sampler": sampler, "samples": samples}
    double = fit(setup(without_norm, batch_size=8, **options).trainer(tmp_path / "double"))
    halves = setup(without_norm, batch_size=4, recipe={"accumulate": 2}, **options).trainer(tmp_path / "halves")
    fit(halves)
    assert double.context.clock == halves.context.clock
    for name, value in double.method.state_dict().items():
        torch.testing.assert_close(value, halves.method.state_dict()[name], rtol=1e-4, atol=1e-6, msg=name)
    logged = [[record["loss/task"] for _, record in one.callbacks[0].logs] for one in (double, halves)]
    assert logged[0] == pytest.approx(logged[1], rel=1e-5)


class Dropped(Method):
    """Dropout in front of the head: each step draws from the global generator."""

    def readout(self, features, fused, presence, size):
        dropped = [nn.functional.dropout(level, 0.4, self.training) for level in fused]
        return super().readout(features, dropped, presence, size)


@pytest.mark.parametrize("balancer", [Balancer, Withholds])
@pytest.mark.parametrize("stop_after", [1, 2, 4, 5])
def test_accumulate__resumed_run_equals_an_uninterrupted_one(setup, fit, same_state, tmp_path, balancer, stop_after):
    make = setup(Dropped, balancer, recipe={"accumulate": 3}).trainer
    whole = fit(make(tmp_path / "whole"))
    first = make(tmp_path / "run", stop_after=stop_after)
    interrupted(first, fit)
    second = fit(make(tmp_path / "run"), resume=True)
    same_state(whole, second)
    assert first.callbacks[0].steps + second.callbacks[0].steps == whole.callbacks[0].steps


# What the optimiser forgets


class Forgets(Balancer):
    """Lets the optimiser forget the first encoder before the second epoch."""

    def on_epoch_start(self, epoch):
        if epoch.clock.epoch == 1:
            epoch.forget(epoch.groups["rgb"])


@pytest.mark.parametrize("resumed", [False, True])
def test_forget__drops_the_memory_of_some_parameters(setup, fit, tmp_path, resumed):
    make = setup(sampler="complete", recipe={"epochs": 1}).trainer
    trainer = fit(make(tmp_path))
    if resumed:  # the optimiser's state is then another object
        trainer = make(tmp_path)
        trainer.load()
    own = trainer.context.groups["rgb"]
    others = [parameter for parameter in trainer.method.parameters() if all(parameter is not one for one in own)]
    trainer._forget(own)
    state = trainer.context.optimizer.optimizer.state
    assert not any(parameter in state for parameter in own)
    assert all(parameter in state for parameter in others)


def test_forget__run_goes_on_and_resumes(setup, fit, same_state, tmp_path):
    make = setup(Method, Forgets).trainer
    whole = fit(make(tmp_path / "whole"))
    plain = fit(setup().trainer(tmp_path / "plain"))
    assert any(
        not torch.equal(*pair) for pair in zip(whole.method.parameters(), plain.method.parameters(), strict=True)
    )
    interrupted(make(tmp_path / "run", stop_after=7), fit)
    same_state(whole, fit(make(tmp_path / "run"), resume=True))


# The strategies that use all of this


def with_heads(blueprint) -> Method:
    """Dropout, and a head per modality."""
    method = Dropped(blueprint)
    method.unimodal_heads = blueprint.make_heads(method.trunk)
    return method


STRATEGIES = {
    "g_blending": {"super_epoch": 2, "trial_epochs": 1, "held_out": 0.2},
    "sample_valuation": {"warmup_epochs": 1},
    "diagnosing_relearning": {"every": 1, "rows_per_class": 1, "gap": "absolute", "reset_state": True},
}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(("name", "options"), STRATEGIES.items())
def test_strategy__resumed_in_mid_epoch_equals_an_uninterrupted_run(
    setup, fit, same_state, build_registered, tmp_path, name, options, accumulate
):
    """The third of four epochs has a plan, weights or a pull behind it; a stop in its middle must not lose them."""
    balancer = partial(build_registered, "balancer", name, **options)
    make = setup(with_heads, balancer, recipe={"epochs": 4, "accumulate": accumulate}).trainer
    whole = fit(make(tmp_path / "whole"))
    plain = fit(setup(with_heads, recipe={"epochs": 4, "accumulate": accumulate}).trainer(tmp_path / "plain"))
    assert any(
        not torch.equal(*pair) for pair in zip(whole.method.parameters(), plain.method.parameters(), strict=True)
    )
    middle = next(step for step, epoch in whole.callbacks[0].steps if epoch == 2) + 1
    interrupted(make(tmp_path / "run", stop_after=middle), fit)
    resumed = make(tmp_path / "run")
    same_state(whole, fit(resumed, resume=True))
    assert checkpoint.load(whole.last)["balancer"].keys() == checkpoint.load(resumed.last)["balancer"].keys()
