"""Means of loss terms, and the stop at the first that is not finite."""

import json

import pytest
import torch

from robustmm import Clock, LossTerm, RunFailed
from robustmm.engine.watch import LossWatch

EVERYTHING = torch.tensor([[True, True]])
MIXED = torch.tensor([[True, False], [True, True], [True, False]])


def at(step: int, epoch: int = 0) -> Clock:
    return Clock(epoch=epoch, step=step, epochs=3, steps_per_epoch=10)


def terms(**values: float) -> dict[str, LossTerm]:
    return {name: LossTerm(torch.tensor(value), "task") for name, value in values.items()}


def watch(*, every_step: bool = True) -> LossWatch:
    return LossWatch(["rgb", "depth"], every_step=every_step)


@pytest.mark.parametrize("every_step", [True, False])
def test_read__gives_the_mean_of_each_term_and_their_sum(every_step):
    own = watch(every_step=every_step)
    own.add(at(0), terms(task=1.0, kl=0.5), EVERYTHING)
    own.add(at(1), terms(task=2.0, kl=0.25), EVERYTHING)
    assert own.read() == {"loss/task": 1.5, "loss/kl": 0.375, "loss/total": 1.875}


def test_read__starts_anew():
    own = watch()
    own.add(at(0), terms(task=1.0), EVERYTHING)
    own.read()
    assert own.read() == {}
    own.add(at(1), terms(task=4.0), EVERYTHING)
    assert own.read() == {"loss/task": 4.0, "loss/total": 4.0}


def test_read__a_term_counts_the_steps_that_had_it():
    own = watch()
    own.add(at(0), terms(task=1.0), EVERYTHING)
    own.add(at(1), terms(task=3.0, teacher=5.0), EVERYTHING)
    assert own.read() == {"loss/task": 2.0, "loss/teacher": 5.0, "loss/total": 7.0}


def test_add__step_without_a_term_counts_nothing():
    own = watch()
    own.add(at(0), {}, EVERYTHING)
    assert own.read() == {}


def test_add__not_a_number_is_named_with_term_step_epoch_and_combinations():
    own = watch()
    own.add(at(6), terms(task=1.0, kl=1.0), EVERYTHING)
    with pytest.raises(RunFailed) as caught:
        own.add(at(7, epoch=2), terms(task=1.0, kl=float("nan")), MIXED)
    assert str(caught.value) == (
        "non-finite loss at step 7 (epoch 2): kl = nan; combinations in the batch: rgb, rgb+depth. "
        "No later checkpoint was written; try a lower optimizer.lr, train.clip_norm, or train.precision 32"
    )


def test_add__infinity_counts_as_non_finite_and_all_bad_terms_are_named():
    with pytest.raises(RunFailed, match=r"task = inf, kl = -inf; combinations"):
        watch().add(at(0), terms(task=float("inf"), kl=float("-inf")), EVERYTHING)


def test_delayed_look__reports_the_first_bad_step():
    own = watch(every_step=False)
    for step, value in enumerate([1.0, float("nan"), float("inf")]):
        own.add(at(step), terms(task=value), MIXED[step : step + 1])
    with pytest.raises(RunFailed, match=r"non-finite loss at step 1 \(epoch 0\): task = nan; .* batch: rgb\+depth\."):
        own.read()


def test_add__keeps_no_graph():
    own, weight = watch(every_step=False), torch.ones(1, requires_grad=True)
    value = (weight * 2).sum()
    own.add(at(0), {"task": LossTerm(value, "task")}, EVERYTHING)
    assert not own._pending[0].values.requires_grad


def test_read__half_precision_terms_are_read_in_full():
    own = watch()
    for step in range(2):
        own.add(at(step), {"task": LossTerm(torch.tensor(1.0, dtype=torch.bfloat16), "task")}, EVERYTHING)
    assert own.read()["loss/task"] == 1.0


def test_look__keeps_the_sums_and_reports_what_is_bad():
    own = watch(every_step=False)
    own.add(at(0), terms(task=1.0), EVERYTHING)
    own.look()
    own.add(at(1), terms(task=2.0), EVERYTHING)
    assert own.read()["loss/task"] == 1.5
    own.add(at(2), terms(task=float("nan")), EVERYTHING)
    with pytest.raises(RunFailed, match="non-finite loss at step 2"):
        own.look()


@pytest.mark.parametrize("every_step", [True, False])
def test_state__carries_the_sums_over(every_step):
    own, again = watch(every_step=every_step), watch(every_step=every_step)
    own.add(at(0), terms(task=1.0, kl=2.0), EVERYTHING)
    again.load_state(json.loads(json.dumps(own.state())))
    for one in (own, again):
        one.add(at(1), terms(task=2.0), EVERYTHING)
    assert own.read() == again.read() == {"loss/task": 1.5, "loss/kl": 2.0, "loss/total": 3.5}


def test_state__of_a_broken_run_cannot_be_saved():
    own = watch(every_step=False)
    own.add(at(0), terms(task=float("nan")), EVERYTHING)
    with pytest.raises(RunFailed, match="non-finite loss at step 0"):
        own.state()
