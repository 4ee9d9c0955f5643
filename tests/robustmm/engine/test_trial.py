"""A trial trains a copy as the run would, and leaves the run as it was."""

import copy
import random

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.precision import MixedPrecision
from torch import nn

from robustmm import Balancer, EpochPlan, Method, Schedule


class Dropped(Method):
    """Dropout in front of the head: each step draws from the global generator."""

    def readout(self, features, fused, presence, size):
        dropped = [nn.functional.dropout(level, 0.4, self.training) for level in fused]
        return super().readout(features, dropped, presence, size)


class ByEpoch(Method):
    """Its loss grows with the epoch."""

    def losses(self, output, batch, clock):
        terms = super().losses(output, batch, clock)
        return {name: term._replace(value=term.value * (1 + clock.epoch)) for name, term in terms.items()}


class Doubled(Balancer):
    """The task's loss times two."""

    def weigh(self, terms, view):
        return {name: term._replace(value=2 * term.value) for name, term in terms.items()}


class Sees(Balancer):
    """Writes down the samples of each update, and where training stands."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.clocks: list[tuple[int, int]] = []

    def weigh(self, terms, view):
        self.seen += view.batch.index.tolist()
        self.clocks.append((view.clock.epoch, view.clock.step))
        return terms


class Tries(Balancer):
    """Trains a copy before each epoch and throws it away."""

    def on_epoch_start(self, epoch):
        epoch.trial(Doubled(), epochs=2)


def weights(method) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items()}


def equal(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_trial__leaves_everything_as_it_was(setup, fit, tmp_path, accumulate):
    trainer = fit(setup(Dropped, recipe={"epochs": 1, "accumulate": accumulate}).trainer(tmp_path))
    trainer._forget(trainer.context.groups["rgb"])  # an optimiser that knows some parameters alone
    before = weights(trainer.method)
    memory = copy.deepcopy(trainer.context.optimizer.state_dict())
    modes = [part.training for part in trainer.method.modules()]
    gradients = [None if p.grad is None else p.grad.clone() for p in trainer.method.parameters()]
    clock, log, generators = trainer.context.clock, dict(trainer.watch._sums), _generators()
    trainer._epoch_view().trial(Doubled(), epochs=2)
    assert equal(weights(trainer.method), before)
    torch.testing.assert_close(trainer.context.optimizer.state_dict(), memory, rtol=0, atol=0)
    assert [part.training for part in trainer.method.modules()] == modes
    for old, parameter in zip(gradients, trainer.method.parameters(), strict=True):
        assert (old is None and parameter.grad is None) or torch.equal(old, parameter.grad)
    assert (trainer.context.clock, trainer.watch._sums) == (clock, log)
    assert _generators() == generators


def _generators() -> tuple[object, ...]:
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - whether it is left alone is the question
    return (torch.get_rng_state().tolist(), random.getstate(), kind, keys.tolist(), *rest)


def test_trial__run_with_trials_equals_one_without(setup, fit, same_state, tmp_path):
    plain = fit(setup(Dropped).trainer(tmp_path / "plain"))
    tried = fit(setup(Dropped, Tries).trainer(tmp_path / "tried"))
    same_state(plain, tried)


def test_trial__two_equal_ones_are_equal(setup, tmp_path):
    view = setup(Dropped).trainer(tmp_path)._epoch_view()
    one = weights(view.trial(Balancer(), epochs=2))
    torch.rand(7)  # what was drawn before must not matter
    assert equal(weights(view.trial(Balancer(), epochs=2)), one)
    assert not equal(weights(view.trial(Doubled(), epochs=2)), one)
    assert not equal(weights(view.method), one)


@pytest.mark.parametrize("method", [Dropped, ByEpoch])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_trial__of_the_whole_run_is_the_run(setup, fit, tmp_path, method, accumulate):
    """Learning rate, order, masks, dropout and the clock are those that the run has in the same epochs."""
    make = setup(method, recipe={"accumulate": accumulate}).trainer
    trained = make(tmp_path / "trial")._epoch_view().trial(Balancer(), epochs=3)
    assert equal(weights(trained), weights(fit(make(tmp_path / "run")).method))


def test_trial__trains_on_the_samples_that_it_is_given(setup, tmp_path):
    trainer, balancer = setup(batch_size=2).trainer(tmp_path), Sees()
    trainer._epoch_view().trial(balancer, epochs=2, indices=torch.tensor([3, 5, 11, 3]))
    assert sorted(balancer.seen) == [3, 3, 3, 3, 5, 5, 11, 11]
    assert balancer.clocks == [(0, 0), (0, 1), (1, 2), (1, 3)]


class Places(Schedule):
    """Writes down the steps that it is asked for."""

    asked: list[int]

    def __call__(self, step):
        Places.asked.append(step)
        return super().__call__(step)


class LongThenTries(Balancer):
    """Epochs of three times their length; a trial before each."""

    def __init__(self) -> None:
        self.places: list[list[int]] = []

    def on_epoch_start(self, epoch):
        Places.asked = []
        epoch.trial(Balancer(), epochs=2, indices=torch.arange(9))
        self.places.append(list(Places.asked))
        return EpochPlan(torch.arange(18).repeat(3))


def test_trial__has_the_learning_rates_of_its_epochs_however_long_the_run_s_are(setup, fit, tmp_path):
    """5 steps an epoch by the schedule; nine samples in batches of 4, of which the last has 5, are 2 steps. Behind
    the end of the run the last place is kept."""
    trainer = fit(setup(Method, LongThenTries, recipe={"make_schedule": Places}).trainer(tmp_path))
    assert trainer.balancer.places == [[0, 2, 5, 7], [5, 7, 10, 12], [10, 12, 14, 14]]


def test_trial__that_is_interrupted_restores_the_generators(setup, tmp_path):
    trainer = setup(Dropped).trainer(tmp_path)
    before, state = weights(trainer.method), torch.get_rng_state()
    trainer.interrupt.requested = True
    with pytest.raises(KeyboardInterrupt):
        trainer._epoch_view().trial(Balancer(), epochs=1)
    assert equal(weights(trainer.method), before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture
def scaled_fabric() -> Fabric:
    """A scaler as for float16 on a GPU, which grows with every step; forward passes are left in float32 here."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    precision = MixedPrecision(precision="16-mixed", device="cpu", scaler=scaler)
    precision._desired_input_dtype = torch.float32
    precision.forward_context = lambda: torch.autocast("cpu", enabled=False)
    return Fabric(accelerator="cpu", devices=1, plugins=precision)


def test_trial__leaves_the_loss_scale(setup, fit, tmp_path, scaled_fabric):
    trainer = fit(setup(recipe={"epochs": 1}, fabric=scaled_fabric).trainer(tmp_path))
    precision = trainer.fabric.strategy.precision
    before = precision.state_dict()
    trained = trainer._epoch_view().trial(Balancer(), epochs=1)
    assert precision.state_dict() == before
    assert all(value.isfinite().all() for value in trained.state_dict().values())
    untouched = trainer.context.optimizer.optimizer
    precision.scaler.scale(torch.ones((), requires_grad=True) * 1).backward()
    precision.unscale_gradients(untouched)  # the scaler does not think that this has been done


def test_trial__averages_batch_statistics_over_processes(setup, tmp_path, monkeypatch):
    """As at the end of each epoch of the run: with buffers of its own each process would judge another copy."""
    averaged = []
    trainer = setup().trainer(tmp_path)
    monkeypatch.setattr("robustmm.distributed.average_buffers", averaged.append)
    trained = trainer._epoch_view().trial(Balancer(), epochs=2)
    assert averaged == [trained, trained]
