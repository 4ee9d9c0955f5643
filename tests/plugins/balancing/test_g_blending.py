"""Gradient-Blending: the weights, the trials that they come from, and the blended loss."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_models as tiny
import torch
from lightning.fabric import Fabric
from pydantic import ValidationError
from robustmm_plugins.balancing.g_blending import GBlending, GBlendingOptions, OneLoss, blend_weights, head_sums
from torch import nn

from robustmm import Balancer, Encoder, EpochView, LossTerm, Method, MissingPolicy, RunFailed, generator_for
from robustmm.engine.step import StepContext, train_step
from robustmm.models.trunk import LateTrunk
from robustmm.testing.runs import Run, mixed, showing
from robustmm.testing.tiny import Setting
from robustmm.types import Batch

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "g_blending.json").read_text())
HEADS = ("joint", "audio", "visual")
NAN = float("nan")


def losses_of(case) -> tuple[torch.Tensor, torch.Tensor]:
    """(K, 2) before and after, the joint head first."""
    own = GOLDEN[case]["losses_before_after"]
    table = torch.tensor([[own[h]["train"], own[h]["held_out"]] for h in HEADS], dtype=torch.float64)  # (K, 2, time)
    return table[..., 0], table[..., 1]


def golden_weights(case) -> torch.Tensor:
    audio, visual, joint = GOLDEN[case]["weights"]
    return torch.tensor([joint, audio, visual], dtype=torch.float64)


def rows(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# --- the weights ---


def test_weights__match_the_worked_example():
    """Growth of overfitting 0.9, 0.5, 0.2 and gain 0.5, 0.5, 0.6 of joint, audio, visual."""
    weights = blend_weights(*losses_of("delta"))
    torch.testing.assert_close(weights, rows(0.035039, 0.113525, 0.851437), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("case", "form"),
    [
        ("delta", "delta"),
        ("absolute", "absolute"),
        ("delta_negative_overfitting", "delta"),
        ("absolute_negative_overfitting", "absolute"),
        ("trained_delta", "delta"),
        ("trained_absolute", "absolute"),
    ],
)
def test_weights__equal_those_of_the_released_estimator(case, form):
    weights = blend_weights(*losses_of(case), form=form)
    torch.testing.assert_close(weights, golden_weights(case), atol=1e-6, rtol=1e-6)


def test_weights__two_forms_differ():
    before, after = losses_of("delta")
    assert (blend_weights(before, after) - blend_weights(before, after, form="absolute")).abs().max() > 0.01


def test_weights__head_whose_held_out_loss_rises_gets_none_where_the_release_rewards_it():
    before, after = losses_of("delta_rising_held_out_loss")
    weights = blend_weights(before, after)
    assert weights[1] == 0
    assert golden_weights("delta_rising_held_out_loss")[1] > 0
    _, visual, joint = GOLDEN["delta_rising_held_out_loss"]["weights"]
    assert (weights[2] / weights[0]).item() == pytest.approx(visual / joint, rel=1e-6)


def test_weights__do_not_depend_on_the_scale_of_losses_and_on_the_order_of_heads():
    before, after = losses_of("delta")
    weights = blend_weights(before, after)
    torch.testing.assert_close(blend_weights(7 * before, 7 * after), weights, atol=1e-5, rtol=0)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(blend_weights(before[order], after[order]), weights[order])


def test_weights__of_identical_heads_are_equal():
    weights = blend_weights(rows([2.0, 2.1]).expand(4, 2), rows([1.0, 1.5]).expand(4, 2))
    torch.testing.assert_close(weights, torch.full((4,), 0.25, dtype=torch.float64))


def test_weights__are_finite_where_overfitting_does_not_change():
    weights = blend_weights(rows([2.0, 2.0], [2.0, 2.0]), rows([1.0, 1.0], [1.0, 1.5]))
    assert weights.isfinite().all()
    assert weights[0] > 0.999
    assert blend_weights(*[rows([1.0, 1.0])] * 2, form="absolute").tolist() == [1.0]


@pytest.mark.parametrize("form", ["delta", "absolute"])
def test_weights__head_without_samples_or_whose_copy_diverged_gets_none(form):
    before = rows([2.0, 2.1], [NAN, NAN], [2.0, 2.0], [2.0, 2.0])
    after = rows([1.0, 1.6], [NAN, NAN], [NAN, NAN], [1.0, float("inf")])
    assert blend_weights(before, after, form=form).tolist() == [1.0, 0.0, 0.0, 0.0]


def test_weights__where_no_head_gains_are_kept_or_equal():
    before, after = rows([1.0, 1.0], [1.0, 1.0]), rows([0.5, 1.5], [0.5, 1.0])
    assert blend_weights(before, after).tolist() == [0.5, 0.5]
    assert blend_weights(before, after, torch.tensor([0.25, 0.75])).tolist() == [0.25, 0.75]


# --- trials, against the authors' code ---


class Concat(nn.Module):
    """Side by side."""

    channels = (4,)

    def forward(self, level, features, presence):
        return torch.cat(list(features.values()), dim=1)

    def summands(self, level, features, presence):
        return None


def golden_method() -> Method:
    """Encoders of a linear layer and tanh, linear heads, in float64 with the recorded weights."""
    widths = {"audio": 3, "visual": 2}
    given = {k: torch.tensor(v, dtype=torch.float64) for k, v in GOLDEN["trained_absolute"]["parameters"].items()}

    def linear(name) -> nn.Linear:
        weight = given[f"{name}.weight"]
        layer = nn.Linear(weight.shape[1], weight.shape[0]).double()
        layer.load_state_dict({"weight": weight, "bias": given[f"{name}.bias"]})
        return layer

    modalities = tuple(tiny.Modality(n, "vector", (w,), tiny.Scaling("none")) for n, w in widths.items())
    encoders = {}
    for name in widths:
        layers = nn.Sequential(linear(f"{name}_encoder.fc"), nn.Tanh())
        encoders[name] = Encoder(nn.ModuleList([layers]), (2,), (0,))

    def head(name, channels) -> tiny.LinearHead:
        made = tiny.LinearHead(channels, 3)
        made.linear = linear(name)
        return made

    trunk = LateTrunk(modalities, encoders, Concat(), MissingPolicy())
    blueprint = tiny.Blueprint(
        modalities, tiny.TinyTask(), lambda **_: trunk, lambda channels: head("joint_head", channels)
    )
    method = Method(blueprint)
    method.unimodal_heads = nn.ModuleDict({name: head(f"{name}_head", (2,)) for name in widths})
    return method


def golden_batches(part) -> list[Batch]:
    batches = []
    for own in GOLDEN["trained_absolute"][part]:
        inputs = {name: torch.tensor(own[name], dtype=torch.float64) for name in ("audio", "visual")}
        target, count = torch.tensor(own["label"]), len(own["label"])
        ids = tuple(map(str, range(count)))
        batches.append(Batch(inputs, torch.ones(count, 2).bool(), target, ids, torch.arange(count)))
    return batches


def golden_view(method) -> EpochView:
    """Seven training samples, five held out; positions in that order; trials as the authors' code makes them."""
    fabric = Fabric(accelerator="cpu", devices=1)
    training, held_out = golden_batches("train_batches"), golden_batches("held_out_batches")

    def trial(balancer, *, epochs, indices=None):
        copied = golden_method()
        optimizer = fabric.setup_optimizers(torch.optim.SGD(copied.parameters(), lr=0.5))
        run = StepContext(fabric, copied, balancer, optimizer, copied.trunk.parameter_groups(), None, 0, tiny.clock())
        for _ in range(epochs):
            for batch in training:
                train_step(run, [batch], batch.observed)
        return copied

    return EpochView(
        method=method,
        clock=tiny.clock(),
        groups=method.trunk.parameter_groups(),
        samples=12,
        batches=lambda indices: iter(training if indices is None or indices[0] < 7 else held_out),
        held_out=lambda: iter(()),
        evaluate=None,
        trial=trial,
        forget=None,
    )


@pytest.mark.parametrize("form", ["delta", "absolute"])
@pytest.mark.parametrize("trials", ["together", "apart"])
def test_estimate__equals_the_released_one_from_training_to_weights(form, trials):
    """Losses before and after three epochs of each head alone, and what comes of them."""
    balancer = GBlending(form=form, trials=trials, trial_epochs=3)
    weights = balancer.estimate(golden_view(golden_method()), torch.arange(7), torch.arange(7, 12))
    torch.testing.assert_close(weights, golden_weights(f"trained_{form}"), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize(("part", "column"), [("train_batches", 0), ("held_out_batches", 1)])
def test_head_sums__give_the_released_losses_before_training(part, column):
    method = golden_method().eval()
    sums = sum(head_sums(method, batch, method(batch.inputs, batch.observed)) for batch in golden_batches(part))
    before, _ = losses_of("trained_delta")
    torch.testing.assert_close(sums[:, 0] / sums[:, 1], before[:, column], atol=1e-9, rtol=0)


# --- sums of losses ---


def with_heads(count, *, dense=False) -> Method:
    torch.manual_seed(0)
    parts = tiny.blueprint(count, dense=dense)
    method = Method(parts)
    method.unimodal_heads = parts.make_heads(method.trunk)
    return method


@pytest.mark.parametrize("dense", [False, True])
def test_head_sums__count_the_samples_that_have_a_modality(dense):
    method = with_heads(2, dense=dense).eval()
    data = tiny.batch(2, size=3, dense=dense)
    batch = replace(data, observed=torch.tensor([[1, 1], [1, 0], [1, 0]]).bool())
    output = method(batch.inputs, batch.observed, size=tuple(batch.target.shape[1:]))
    sums = head_sums(method, batch, output)
    assert sums[:, 1].tolist() == [3, 3, 1]
    alone = method.unimodal_heads["depth"](output.features["depth"], tuple(batch.target.shape[1:]))
    expected = nn.functional.cross_entropy(alone[:1], batch.target[:1]).item()
    assert sums[2, 0].item() == pytest.approx(expected, rel=1e-6)


def test_head_sums__of_a_batch_of_one():
    method, data = with_heads(2).eval(), tiny.batch(2, size=1)
    sums = head_sums(method, data, method(data.inputs, data.observed))
    assert sums.isfinite().all()
    assert sums[:, 1].tolist() == [1, 1, 1]


def test_head_sums__without_heads_say_what_is_missing():
    method, data = Method(tiny.blueprint(2)).eval(), tiny.batch(2)
    with pytest.raises(RunFailed, match="needs a head per modality"):
        head_sums(method, data, method(data.inputs, data.observed))


# --- the split ---


@pytest.mark.parametrize(("samples", "share", "held"), [(100, 0.08, 8), (10, 0.01, 1), (2, 0.9, 1), (3, 0.99, 2)])
def test_split__leaves_something_on_both_sides(samples, share, held):
    training, held_out = GBlending(held_out=share).split(samples, seed=0)
    assert len(held_out) == held
    assert sorted([*training.tolist(), *held_out.tolist()]) == list(range(samples))


def test_split__depends_on_the_seed_alone():
    assert torch.equal(GBlending().split(50, 3)[1], GBlending().split(50, 3)[1])
    assert not torch.equal(GBlending().split(50, 3)[1], GBlending().split(50, 4)[1])
    first = torch.randperm(50, generator=generator_for(3, "g_blending"))[:4]
    assert torch.equal(GBlending().split(50, 3)[1], first.sort().values)


# --- when it estimates ---


class Scripted(GBlending):
    """Writes down when it estimates."""

    def estimate(self, epoch, training, held_out):
        self.asked = [*getattr(self, "asked", []), epoch.clock.epoch]
        return torch.full((3,), 1 / 3, dtype=torch.float64)


@pytest.mark.parametrize(("mode", "expected"), [("online", [0, 2, 4]), ("offline", [0])])
def test_epochs__online_estimates_every_super_epoch_and_never_trains_on_what_is_held_out(mode, expected):
    balancer = Scripted(mode=mode, super_epoch=2)
    view = golden_view(golden_method())
    for number in range(6):
        plan = balancer.on_epoch_start(replace(view, clock=tiny.clock(epoch=number)))
        if mode == "offline":
            assert plan is None
        else:
            assert torch.equal(plan.indices, balancer.split(12, view.seed)[0])
    assert balancer.asked == expected


@pytest.mark.parametrize(("options", "length"), [({}, 4), ({"super_epoch": 3}, 3), ({"trial_epochs": 7}, 7)])
def test_estimate__trains_for_a_super_epoch_or_what_is_left_of_the_run(options, length):
    """The clock says 16 of 20 epochs."""
    lengths = []
    view = golden_view(golden_method())
    trial = lambda balancer, *, epochs, indices: lengths.append(epochs) or view.method  # noqa: E731
    view = replace(view, clock=tiny.clock(epoch=16), trial=trial)
    GBlending(**options).estimate(view, torch.arange(7), torch.arange(7, 12))
    assert lengths == [length, length]


@pytest.mark.parametrize(("trials", "late", "expected"), [
    ("together", True, [(), ("audio", "visual")]),
    ("apart", True, [(), ("audio",), ("visual",)]),
    ("together", False, [(), ("audio",), ("visual",)]),
])  # fmt: skip
def test_estimate__trains_copies_together_where_encoders_are_separate(monkeypatch, trials, late, expected):
    if not late:
        monkeypatch.setattr("robustmm_plugins.balancing.g_blending.LateTrunk", type("Other", (), {}))
    names = []
    view = golden_view(golden_method())
    trial = lambda balancer, *, epochs, indices: names.append(balancer.names) or view.method  # noqa: E731
    GBlending(trials=trials).estimate(replace(view, trial=trial), torch.arange(7), torch.arange(7, 12))
    assert names == expected


def test_epochs__where_no_sample_has_two_modalities_nothing_happens():
    view = golden_view(golden_method())
    alone = [replace(b, observed=torch.eye(2).bool()[torch.arange(len(b)) % 2]) for b in view.batches(torch.arange(7))]
    balancer = GBlending()
    assert balancer.on_epoch_start(replace(view, batches=lambda indices: iter(alone))) is None
    assert balancer.weights is None


# --- the blended loss ---


def step_of(balancer, presence, *, method=None):
    """Terms before and after, of a method with an auxiliary term."""
    method = method or with_heads(2)
    data = tiny.batch(2)
    view = tiny.step_view(method, data, presence)
    terms = method.losses(view.output, data, view.clock) | {"extra": LossTerm(torch.tensor(5.0), "auxiliary")}
    return terms, balancer.weigh(terms, view), view


def blending(*weights) -> GBlending:
    balancer = GBlending()
    balancer.weights = torch.tensor(weights, dtype=torch.float64)
    return balancer


def test_weigh__scales_the_task_s_terms_and_adds_the_modalities_own():
    before, after, view = step_of(blending(0.5, 0.2, 0.3), torch.ones(8, 2).bool())
    assert list(after) == ["task", "extra", "own_head/rgb", "own_head/depth"]
    assert after["extra"] == before["extra"]
    own = view.own_head_losses()
    assert after["task"].value.item() == pytest.approx(0.5 * before["task"].value.item())
    assert after["own_head/rgb"].value.item() == pytest.approx(0.2 * own["rgb"].item())
    assert after["own_head/depth"].value.item() == pytest.approx(0.3 * own["depth"].item())


def test_weigh__modality_that_no_sample_shows_has_no_term():
    presence = tiny.shown(("rgb",), 2)
    presence = presence.clone()
    _, after, _ = step_of(blending(0.5, 0.2, 0.3), presence)
    assert "own_head/depth" not in after


def test_weigh__before_an_estimate_and_where_nothing_is_contested_leaves_the_terms():
    before, after, _ = step_of(GBlending(), torch.ones(8, 2).bool())
    assert after is before
    before, after, _ = step_of(blending(0.5, 0.2, 0.3), torch.eye(2).bool()[torch.arange(8) % 2])
    assert after is before


def test_one_loss__of_the_joint_head_is_plain_training_and_of_a_modality_its_own():
    before, after, view = step_of(OneLoss(), torch.ones(8, 2).bool())
    assert after is before
    _, after, view = step_of(OneLoss(("depth",)), torch.ones(8, 2).bool())
    assert list(after) == ["extra", "own_head/depth"]
    assert after["own_head/depth"].value.item() == pytest.approx(view.own_head_losses()["depth"].item())


def test_one_loss__of_a_batch_without_the_modality_trains_nothing():
    method, data = with_heads(2), tiny.batch(2)
    view = tiny.step_view(method, data, tiny.shown(("rgb",), 2))
    method.zero_grad()
    terms = OneLoss(("depth",)).weigh(method.losses(view.output, data, view.clock), view)
    OneLoss(("depth",)).backward(terms, view)
    assert terms == {}
    assert all(parameter.grad is None for parameter in method.parameters())


# --- in a run ---


def run_of(balancer=None, **options) -> Run:
    return Run(Setting(2), balancer or GBlending(super_epoch=2), heads=True, **options)


def test_run__trials_of_one_loss_train_that_modality_alone():
    run = run_of()
    copied = run._try(OneLoss(("m1",)), epochs=1)
    pairs = zip(copied.named_parameters(), run.method.parameters(), strict=True)
    moved = {name for (name, new), old in pairs if not torch.equal(new, old)}
    assert {"own", "unimodal_heads.m1.linear.weight"} <= moved
    assert all(name == "own" or ".m1." in name for name in moved)


def test_run__weights_are_of_sum_one_and_change_with_super_epochs():
    run, seen = run_of(), []
    estimate = run.balancer.estimate
    run.balancer.estimate = lambda *parts: seen.append(estimate(*parts)) or seen[-1]
    run.train(mixed(run.setting))
    assert len(seen) == 2
    for weights in seen:
        assert weights.sum().item() == pytest.approx(1)
        assert (weights >= 0).all()
    assert not torch.equal(*seen)


@pytest.mark.parametrize("trials", ["together", "apart"])
def test_run__one_shown_modality_leaves_the_run_as_it_is(trials):
    ours, plain = run_of(GBlending(super_epoch=1, trials=trials)), run_of(Balancer())
    for run in (ours, plain):
        run.train(showing(run.setting, (1,)))
    assert all(torch.equal(value, plain.weights()[name]) for name, value in ours.weights(heads=False).items())


def test_run__copies_together_equal_copies_apart():
    weights = []
    for trials in ("together", "apart"):
        run = run_of(GBlending(super_epoch=2, trials=trials), norm=False)
        run.train(mixed(run.setting), stop=1)
        weights.append(run.balancer.weights)
    torch.testing.assert_close(*weights, rtol=1e-9, atol=0)


def test_run__accumulated_batches_and_dense_maps_train():
    for setting in (Setting(3), Setting(2, dense=True), Setting(2, quantities=1)):
        run = Run(setting, GBlending(super_epoch=2), heads=True, accumulate=2)
        run.train(mixed(setting))
        assert all(value.isfinite().all() for value in run.weights().values())


def test_run__in_mixed_precision_terms_are_float32():
    run, terms = run_of(), []
    run.context = replace(run.context, fabric=Fabric(accelerator="cpu", devices=1, precision="bf16-mixed"))
    weigh = run.balancer.weigh
    run.balancer.weigh = lambda *given: terms.append(weigh(*given)) or terms[-1]
    run.train(mixed(run.setting), stop=2)
    assert "own_head/m0" in terms[-1]
    assert all(term.value.dtype == torch.float32 for one in terms for term in one.values())
    assert all(value.isfinite().all() for value in run.weights().values())


def test_state__holds_the_weights():
    balancer = blending(0.5, 0.25, 0.25)
    other = GBlending()
    assert other.state_dict() == {"weights": None}
    other.load_state_dict(balancer.state_dict())
    assert torch.equal(other.weights, balancer.weights)


@pytest.mark.parametrize("wrong", [{"super_epoch": 0}, {"held_out": 0.0}, {"held_out": 1.0}, {"form": "ogr"}, {"n": 1}])
def test_options__refuse(wrong):
    with pytest.raises(ValidationError):
        GBlendingOptions(**wrong)
