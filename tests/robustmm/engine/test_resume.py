"""A run that was interrupted and resumed equals one that never stopped, to the bit."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from robustmm import Balancer, Method
from robustmm.balancing.balancer import EpochPlan
from robustmm.engine import checkpoint


class Dropped(Method):
    """Dropout in front of the head: each step draws from the global generator."""

    def readout(self, features, fused, presence, size):
        return super().readout(features, [F.dropout(level, 0.4, self.training) for level in fused], presence, size)


class Counting(Balancer):
    """Its choice of samples depends on how often it was asked, and its weights on how many batches it saw."""

    def __init__(self) -> None:
        self.asked = 0
        self.batches = torch.zeros(1)

    def on_epoch_start(self, epoch):
        self.asked += 1
        return EpochPlan(torch.arange(18).roll(self.asked)[: 10 + self.asked].repeat(2))

    def weigh(self, terms, view):
        self.batches += 1
        factor = 1 / self.batches.item()
        return {name: term._replace(value=factor * term.value) for name, term in terms.items()}

    def state_dict(self):
        return {"asked": self.asked, "batches": self.batches}

    def load_state_dict(self, state):
        self.asked, self.batches = state["asked"], state["batches"]


@pytest.fixture
def setups(setup, build_registered):
    """Method and balancer pairs by name."""
    method = partial(partial, build_registered, "method")
    balancer = partial(partial, build_registered, "balancer")

    def built(make):
        return lambda blueprint: make(blueprint=blueprint)

    dmrnet = built(method("dmrnet", warmup_epochs=2))
    mmanet = built(method("mmanet", warmup_epochs=2, mining_first=0, mining_last=1, teacher_epochs=1))
    return {
        "plain": setup(sampler="complete"),
        "dropout": setup(Dropped, balancer("ogm_ge")),
        "ogm": setup(built(method("modality_dropout")), balancer("ogm")),
        "dmrnet": setup(dmrnet, balancer("ogm_ge")),
        "mmanet": setup(mmanet),
        "counting": setup(Dropped, Counting),
    }


def interrupted(trainer, fit) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(trainer)


@pytest.mark.parametrize(  # 5 and 10 are the last steps of an epoch
    ("name", "stop_after"),
    [
        *[("plain", 5), ("dropout", 1), ("dropout", 14), ("ogm", 8), ("dmrnet", 8), ("dmrnet", 10), ("mmanet", 7)],
        *[("counting", 2), ("counting", 9)],
    ],
)
def test_resume__equals_an_uninterrupted_run(setups, fit, same_state, tmp_path, name, stop_after):
    make = setups[name].trainer
    whole = fit(make(tmp_path / "whole"))
    first = make(tmp_path / "run", stop_after=stop_after)
    interrupted(first, fit)
    second = make(tmp_path / "run", seed=0)
    with torch.no_grad():
        for parameter in second.method.parameters():
            parameter.add_(1)  # everything must come from the checkpoint
    fit(second, resume=True)
    same_state(whole, second)
    assert first.callbacks[0].epochs + second.callbacks[0].epochs == whole.callbacks[0].epochs
    assert first.callbacks[0].steps + second.callbacks[0].steps == whole.callbacks[0].steps
    assert whole.balancer.state_dict() == second.balancer.state_dict()
    ours, theirs = checkpoint.load(whole.best), checkpoint.load(second.best)
    assert all(torch.equal(value, theirs["weights"][key]) for key, value in ours["weights"].items())


def test_resume__after_several_interruptions(setups, fit, same_state, tmp_path):
    make = setups["dropout"].trainer
    whole = fit(make(tmp_path / "whole"))
    interrupted(make(tmp_path / "run", stop_after=3), fit)
    for stop_after in (4, 10, 11):
        trainer = make(tmp_path / "run", stop_after=stop_after)
        trainer.load()
        with pytest.raises(KeyboardInterrupt):
            trainer.fit()
    same_state(whole, fit(make(tmp_path / "run"), resume=True))


def test_resume__after_a_kill_goes_on_from_the_last_checkpoint(setups, fit, same_state, tmp_path):
    class Killed(BaseException):
        pass

    make = setups["dropout"].trainer
    whole = fit(make(tmp_path / "whole"))
    trainer = make(tmp_path / "run")
    step = trainer._step

    def dies(batch) -> None:
        if trainer.context.clock.step == 8:
            raise Killed
        step(batch)

    trainer._step = dies
    with pytest.raises(Killed):
        fit(trainer)
    same_state(whole, fit(make(tmp_path / "run"), resume=True))


def test_resume__means_of_the_losses_cover_the_steps_before_the_interruption(setups, fit, tmp_path):
    make = setups["plain"].trainer
    whole = fit(make(tmp_path / "whole"))
    first = make(tmp_path / "run", stop_after=7)
    interrupted(first, fit)
    second = fit(make(tmp_path / "run"), resume=True)

    def losses(*trainers):
        return [(s, r["loss/task"], r["lr"]) for t in trainers for s, r in t.callbacks[0].logs]

    assert losses(first, second) == losses(whole)


def test_interrupt__stops_after_the_step_and_writes_where_it_stands(setup, fit, tmp_path):
    trainer = setup().trainer(tmp_path, stop_after=7)
    interrupted(trainer, fit)
    state = checkpoint.load(trainer.last)
    assert (state["epoch"], state["step"], state["batches_done"], state["finished"]) == (1, 7, 2, False)


def test_fit__teacher_is_loaded_by_a_resumed_run(setups, fit, tmp_path):
    first = setups["mmanet"].trainer(tmp_path, stop_after=2)
    interrupted(first, fit)
    messages = first.callbacks[0].messages
    assert messages[0] == "training teacher: 1 epochs on complete samples"
    assert messages[1].startswith("teacher: complete/accuracy ")
    second = fit(setups["mmanet"].trainer(tmp_path), resume=True)
    assert second.callbacks[0].messages == messages[1:]


def test_fit__interrupted_teacher_is_resumed(setups, fit, same_state, tmp_path):
    whole = fit(setups["mmanet"].trainer(tmp_path / "whole"))
    trainer = setups["mmanet"].trainer(tmp_path / "run")
    trainer.interrupt.requested = True  # during the teacher's first step
    interrupted(trainer, fit)
    assert not trainer.last.exists()
    again = setups["mmanet"].trainer(tmp_path / "run")
    same_state(whole, fit(again))
