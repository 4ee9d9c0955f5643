"""Ends of training: asked for late, without a score, on one process of several."""

from __future__ import annotations

import pytest
import torch

from robustmm import Clock, LossTerm, RunFailed, distributed
from robustmm.engine.watch import LossWatch


def test_fit__request_during_the_last_validation_is_heard(setup, fit, tmp_path, monkeypatch):
    own = setup(recipe={"epochs": 1}).trainer(tmp_path)
    validate = own.validate

    def asked():
        own.interrupt.requested = True
        return validate()

    monkeypatch.setattr(own, "validate", asked)
    with pytest.raises(KeyboardInterrupt):
        fit(own)
    again = fit(setup(recipe={"epochs": 1}).trainer(tmp_path), resume=True)
    assert again.finished


def test_fit__without_a_finite_score_fails_and_says_so(setup, fit, tmp_path, monkeypatch):
    own = setup(recipe={"epochs": 2}).trainer(tmp_path)
    monkeypatch.setattr(own.selection, "update", lambda scores, epoch: False)
    with pytest.raises(RunFailed, match="no epoch gave a finite mean/accuracy on validation"):
        fit(own)
    assert own.finished


def test_watch__stops_a_healthy_process_with_the_ill_one(monkeypatch):
    """Else it would wait for the other one's gradients for ever."""
    monkeypatch.setattr(distributed, "gather_objects", lambda own: [own, "non-finite loss at step 3"])
    watch = LossWatch(["rgb"], every_step=True)
    clock = Clock(epoch=0, step=3, epochs=1, steps_per_epoch=9)
    with pytest.raises(RunFailed, match="non-finite loss at step 3"):
        watch.add(clock, {"task": LossTerm(torch.tensor(1.0), "task")}, torch.ones(2, 1).bool())
