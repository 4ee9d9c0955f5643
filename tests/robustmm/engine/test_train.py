"""The loop: order of events, determinism, selection, early stop, and what stops a run."""

import pytest
import tiny_models as tiny
import torch

from robustmm import Balancer, CheckpointError, LossTerm, Method, RunFailed, Schedule
from robustmm.balancing.balancer import EpochPlan, Update
from robustmm.engine import checkpoint
from robustmm.masks import CombinationSampler


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.0)


def test_fit__two_runs_with_one_seed_are_equal_to_the_bit(setup, fit, same_state, tmp_path):
    one = fit(setup().trainer(tmp_path / "one"))
    other = setup().trainer(tmp_path / "other")
    torch.manual_seed(4321)  # what ran before must not matter
    same_state(one, fit(other))
    assert one.callbacks[0].epochs == other.callbacks[0].epochs


def test_fit__another_seed_is_another_run(setup, fit, tmp_path):
    one, other = (fit(setup().trainer(tmp_path / str(seed), seed=seed)) for seed in (0, 1))
    assert not torch.equal(one.method.head.linear.weight, other.method.head.linear.weight)


def test_fit__tells_steps_logs_and_epochs_in_order(setup, fit, tmp_path):
    trainer = fit(setup(samples=18).trainer(tmp_path))  # batches of 4, 4, 4, 4, 2
    notes = trainer.callbacks[0]
    assert notes.steps == [(step + 1, step // 5) for step in range(15)]
    assert [step for step, _ in notes.logs] == [2, 4, 6, 8, 10, 12, 14]
    assert set(notes.logs[0][1]) == {"loss/task", "loss/total", "lr", "samples_per_second"}
    assert trainer.watch.read()["loss/task"] > 0  # the last step is after the last log
    assert notes.logs[1][1]["lr"] == pytest.approx(0.01 / 1.3)
    assert [(epoch, step) for epoch, step, _ in notes.epochs] == [(0, 5), (1, 10), (2, 15)]
    record = notes.epochs[0][2]
    assert {"validation/mean/accuracy", "validation/worst/accuracy", "validation/rgb+depth/accuracy"} <= set(record)
    assert (record["improved"], record["score"]) == (True, "accuracy")
    assert not any(isinstance(value, torch.Tensor) for _, _, record in notes.epochs for value in record.values())


def test_fit__learns(setup, fit, tmp_path):
    def adam(parameters):
        return torch.optim.Adam(parameters, lr=0.05)

    recipe = {"epochs": 6, "log_every": 5, "make_optimizer": adam, "make_schedule": Schedule}
    notes = fit(setup(sampler="complete", recipe=recipe).trainer(tmp_path)).callbacks[0]
    assert notes.logs[-1][1]["loss/task"] < 0.8 * notes.logs[0][1]["loss/task"]


def test_fit__writes_last_and_best(setup, fit, tmp_path):
    trainer = fit(setup().trainer(tmp_path))
    last, best = checkpoint.load(trainer.last), checkpoint.load(trainer.best)
    assert (last["epoch"], last["step"], last["finished"], last["batches_done"]) == (3, 15, True, 0)
    assert best["metric"] == "mean/accuracy"
    assert (best["epoch"], best["score"]) == (trainer.selection.best_epoch, trainer.selection.best)
    scores = [record["validation/mean/accuracy"] for _, _, record in trainer.callbacks[0].epochs]
    assert best["score"] == max(scores)


def test_load_best__gives_the_weights_of_the_best_epoch(setup, fit, tmp_path):
    trainer = fit(setup().trainer(tmp_path))
    trainer.load_best()
    assert trainer.validate().flat["mean/accuracy"] == trainer.selection.best


def test_load_best__says_that_nothing_was_worth_keeping(setup, tmp_path):
    with pytest.raises(RunFailed) as caught:
        setup().trainer(tmp_path).load_best()
    assert str(caught.value) == "no epoch gave a finite mean/accuracy on validation; nothing to keep"


def test_fit__validates_and_saves_when_told_and_always_at_the_end(setup, fit, tmp_path, monkeypatch):
    saved = []
    trainer = setup(recipe={"epochs": 5, "select_every": 2, "checkpoint_every": 3}).trainer(tmp_path)
    monkeypatch.setattr(trainer, "save", lambda: saved.append(trainer.context.clock.epoch))
    fit(trainer)
    assert [epoch for epoch, _, _ in trainer.callbacks[0].epochs] == [1, 3, 4]
    assert saved == [3, 5]


def test_fit__stops_early_without_progress(setup, fit, tmp_path):
    trainer = fit(setup(recipe={"epochs": 9, "patience": 2, "make_optimizer": sgd}).trainer(tmp_path))
    assert trainer.callbacks[0].messages == ["stopped early: no progress in mean/accuracy"]
    ended = checkpoint.load(trainer.last)
    assert ended["finished"]
    assert ended["epoch"] < 9
    assert trainer.selection.waited == 2


def test_fit__run_that_ends_is_not_said_to_have_stopped_early(setup, fit, tmp_path):
    settled = {"patience": 1, "epochs": 1, "make_optimizer": sgd, "select_metric": "depth/accuracy", "min_delta": 2.0}
    trainer = setup(recipe=settled).trainer(tmp_path)
    trainer.selection.best = 0.5  # nothing can be better by 2
    fit(trainer)
    assert trainer.selection.exhausted
    assert trainer.callbacks[0].messages == []


def test_fit__finished_run_is_left_as_it_is(setup, fit, same_state, tmp_path):
    done = fit(setup().trainer(tmp_path))
    again = fit(setup().trainer(tmp_path, seed=5), resume=True)
    assert again.callbacks[0].steps == []
    assert torch.equal(done.method.head.linear.weight, again.method.head.linear.weight)


class BreaksDown(Method):
    """Its loss is not a number at step 7, in the second epoch."""

    def losses(self, output, batch, clock):
        terms = super().losses(output, batch, clock)
        terms["extra"] = LossTerm(output.logits.sum() * (float("nan") if clock.step == 7 else 0.0), "auxiliary")
        return terms


def test_fit__loss_that_is_not_finite_stops_before_anything_is_saved(setup, fit, tmp_path):
    trainer = setup(BreaksDown, sampler="complete").trainer(tmp_path)
    with pytest.raises(RunFailed) as caught:
        fit(trainer)
    assert str(caught.value).startswith(
        "non-finite loss at step 7 (epoch 1): extra = nan; combinations in the batch: rgb+depth+ir."
    )
    state = checkpoint.load(trainer.last)
    assert (state["epoch"], state["step"]) == (1, 5)
    assert all(value.isfinite().all() for value in state["weights"].values())


def test_fit__delayed_look_finds_it_before_the_checkpoint_too(setup, fit, tmp_path):
    trainer = setup(BreaksDown, recipe={"log_every": 100}).trainer(tmp_path, stop_after=8)
    trainer.watch.every_step = False
    with pytest.raises(RunFailed, match="non-finite loss at step 7"):
        fit(trainer)
    assert checkpoint.load(trainer.last)["step"] == 5


class LoneRow(CombinationSampler):
    """The first modality is shown to one sample of each batch."""

    def __call__(self, observed, generator):
        presence = observed.clone()
        presence[1:, 0] = False
        return presence


def test_fit__modality_shown_to_one_sample_trains_through_batch_norm(setup, fit, tmp_path):
    trainer = setup(samples=9).trainer(tmp_path, sampler=LoneRow())
    fit(trainer)
    assert [step for step, _ in trainer.callbacks[0].steps] == list(range(1, 7))  # 4 and 5 samples, three times
    assert all(value.isfinite().all() for value in trainer.method.state_dict().values())


class OneAtATime(Balancer):
    """Two updates a batch, for the first two modalities in turn."""

    def updates(self, presence, modalities):
        for column, name in enumerate(modalities[:2]):
            alone = torch.zeros_like(presence)
            alone[:, column] = True
            yield Update(alone, trains=(name,))


def test_fit__updates_change_what_they_train_and_freeze_other_encoders(setup, fit, tmp_path):
    trainer = setup(Method, OneAtATime).trainer(tmp_path)
    before = {name: value.clone() for name, value in trainer.method.named_parameters()}
    fit(trainer)
    changed = {
        name.split(".")[2]
        for name, value in trainer.method.named_parameters()
        if "encoders" in name and not torch.equal(value, before[name])
    }
    assert changed == {"rgb", "depth"}
    assert not torch.equal(trainer.method.head.linear.weight, before["head.linear.weight"])
    assert trainer.context.clock.step == 15


class Nothing(Balancer):
    """No update for any batch."""

    def updates(self, presence, modalities):
        return ()


def test_fit__batches_without_an_update_change_nothing(setup, fit, tmp_path):
    trainer = setup(Method, Nothing).trainer(tmp_path)
    before = trainer.method.head.linear.weight.clone()
    fit(trainer)
    assert torch.equal(trainer.method.head.linear.weight, before)
    assert trainer.context.clock.step == 15


class Chooses(Balancer):
    """Trains on the same few samples again and again, and notes what it saw."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_epoch_start(self, epoch):
        return EpochPlan(torch.tensor([3, 3, 3, 8, 8, 1]) + epoch.clock.epoch)

    def weigh(self, terms, view):
        self.seen += view.batch.index.tolist()
        return terms


def test_fit__trains_on_the_samples_that_the_balancer_chose(setup, fit, tmp_path):
    trainer = fit(setup(Method, Chooses, recipe={"epochs": 2}).trainer(tmp_path))
    assert sorted(trainer.balancer.seen[:6]) == [1, 3, 3, 3, 8, 8]
    assert sorted(trainer.balancer.seen[6:]) == [2, 4, 4, 4, 9, 9]


class Looks(Balancer):
    """Goes through the training part and the scores before each epoch."""

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.scores: list[float] = []

    def on_epoch_start(self, epoch):
        self.positions += [index for batch in epoch.batches() for index in batch.index.tolist()]
        scores = epoch.evaluate([("rgb",), ("depth", "ir")])
        self.scores += [metrics.compute()["accuracy"] for metrics in scores.values()]


def test_fit__looking_at_the_data_before_an_epoch_changes_nothing(setup, fit, same_state, tmp_path):
    plain = fit(setup(Method, Balancer).trainer(tmp_path / "plain"))
    looking = fit(setup(Method, Looks).trainer(tmp_path / "looking"))
    same_state(plain, looking)
    assert looking.balancer.positions == list(range(18)) * 3
    assert len(looking.balancer.scores) == 6


def test_fit__clipping_bounds_the_gradients(setup, fit, tmp_path):
    norms = []

    def noting(parameters):
        own = list(parameters)
        optimizer = torch.optim.SGD(own, lr=0.1)
        optimizer.register_step_pre_hook(
            lambda *_: norms.append(torch.nn.utils.get_total_norm([p.grad for p in own if p.grad is not None]).item())
        )
        return optimizer

    fit(setup(recipe={"make_optimizer": noting, "clip_norm": 0.05}).trainer(tmp_path))
    assert len(norms) == 15
    assert max(norms) <= 0.05 + 1e-6


def test_dry_step__leaves_no_file(setup, tmp_path):
    setup().trainer(tmp_path / "run").dry_step()
    assert not (tmp_path / "run").exists()


def test_load__without_a_checkpoint(setup, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        setup().trainer(tmp_path).load()


class Wider(Method):
    """One parameter more."""

    def __init__(self, blueprint) -> None:
        super().__init__(blueprint)
        self.extra = torch.nn.Parameter(torch.zeros(1))


def test_load__refuses_the_checkpoint_of_another_model(setup, fit, tmp_path):
    fit(setup(recipe={"epochs": 1}).trainer(tmp_path))
    trainer = setup(Wider).trainer(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        trainer.load()
    assert str(caught.value) == f"{trainer.last} does not fit this configuration: extra is missing"


def test_evaluate__gives_counts_of_the_held_out_part(setup, tmp_path):
    trainer = setup().trainer(tmp_path)
    counts = trainer.evaluate([("rgb", "ir")])
    assert [(combination, metrics.count) for combination, metrics in counts.items()] == [(("rgb", "ir"), 9)]
    assert isinstance(counts["rgb", "ir"], tiny.TinyMetrics)
