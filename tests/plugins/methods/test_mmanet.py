"""MMANet: worked examples, the teacher, mining, regularisation, state."""

import copy
import inspect
import json

import pytest
import tiny_models as tiny
import torch
from pydantic import ValidationError
from robustmm_plugins.methods import mmanet
from robustmm_plugins.methods._combination_set import missing_one
from robustmm_plugins.methods.mmanet import MMANet, MMANetOptions, drift, grid_items, margin_loss
from robustmm_plugins.methods.modality_dropout import ModalityDropout

from robustmm import ConfigError, Method, RunFailed
from robustmm.balancing.view import StepView
from robustmm.losses.margin_aware_distillation import margin_aware_distillation, margin_weights
from robustmm.masks import all_combinations

COUNTS = [1, 2, 3, 4]


class Fit:
    """Trains a teacher for a few steps, or pretends to load one."""

    def __init__(self):
        self.calls = []

    def train(self, name, method, *, epochs=None):
        self.calls.append(("train", name, epochs))
        torch.manual_seed(1)
        tiny.train_steps(method, dense=method.task.dense)

    def load(self, path, method):
        self.calls.append(("load", path))


def ready(count, *, dense=False, **options):
    """A method with a teacher."""
    method = MMANet(tiny.blueprint(count, dense=dense), **options)
    method.on_fit_start(Fit())
    return method


def terms_at(method, data, presence, epoch):
    output = method(data.inputs, presence, size=tuple(data.target.shape[1:]))
    return method.losses(output, data, tiny.clock(epoch))


def metrics_with(predictions, *, dense=False):
    """Counters in which each class was predicted so often: all of truth 0, or in dense prediction all right."""
    metrics = tiny.TinyTask(dense=dense, classes=len(predictions)).metrics()
    if dense:
        metrics.confusion[:, :-1] = torch.diag(torch.tensor(predictions))
    else:
        metrics.confusion[0] = torch.tensor([*predictions, 5])  # five that are no class stay out
    return metrics


class Evaluate:
    """Gives each combination predictions of classes 0 and 1 in the stated shares."""

    def __init__(self, shares):
        self.shares, self.asked = shares, []

    def __call__(self, combinations):
        self.asked.append(list(combinations))
        return {c: metrics_with([self.shares[c], 100 - self.shares[c]]) for c in combinations}


# --- worked examples of the method card ---

STUDENT = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
TEACHER = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
TEACHER_LOGITS = torch.tensor([[2.0, 0.0], [0.0, 0.0], [1.0, 0.0]])


@pytest.mark.parametrize(("axis", "expected"), [("row", 0.430956), ("column", 0.541618)])
def test_mad__matches_worked_example_on_both_axes(axis, expected):
    value = margin_loss([torch.tensor(STUDENT)], [TEACHER], TEACHER_LOGITS, axis)
    assert value.item() == pytest.approx(expected, abs=1e-6)


def test_mad__has_the_gradient_of_the_worked_example():
    student = torch.tensor(STUDENT, requires_grad=True)
    margin_loss([student], [TEACHER], TEACHER_LOGITS, "row").backward()
    expected = torch.tensor([[-0.008898, -0.252814], [-0.447067, -0.224395], [0.213773, 0.019520]])
    torch.testing.assert_close(student.grad, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("own", "smoothing", "expected"),
    [
        (68, "softmax", 1.9324e-4),
        (50, "softmax", 1.98681e-2),
        (72, "softmax", 1.9112e-4),
        (68, "none", 9.408e-4),
        (50, "none", 8.7177e-2),
        (72, "none", 9.651e-4),
    ],
)
def test_drift__matches_worked_example(own, smoothing, expected):
    """Full histogram (0.7, 0.3); the two smallest swap order between the forms."""
    value = drift(tiny.TinyTask(), metrics_with([own, 100 - own]), metrics_with([70, 30]), smoothing)
    assert value == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("dense", [False, True])
def test_drift__of_a_combination_that_no_sample_has_is_0(dense):
    """An empty histogram looks uniform, and would win over every real one."""
    nothing = tiny.TinyTask(dense=dense, classes=2).metrics()
    assert drift(tiny.TinyTask(dense=dense, classes=2), nothing, metrics_with([9, 1], dense=dense), "softmax") == 0


def test_drift__in_dense_prediction_is_the_squared_difference_of_miou():
    half = metrics_with([1, 1], dense=True)
    half.confusion[0, 1] = 2  # class 0: 1 of 3, class 1: 1 of 3
    assert drift(tiny.TinyTask(dense=True), half, metrics_with([3, 1], dense=True), "softmax") == pytest.approx(4 / 9)


# --- items ---


def test_dense_items__are_positions_of_pooled_maps():
    assert grid_items(torch.arange(24.0).view(1, 2, 3, 4), (3, 4)).tolist()[:2] == [[0.0, 12.0], [1.0, 13.0]]
    large = torch.randn(2, 3, 64, 50)
    small = torch.nn.functional.adaptive_avg_pool2d(large, (30, 40))
    weights = margin_weights(grid_items(large, (30, 40)))
    expected = margin_aware_distillation(grid_items(small, (30, 40)), grid_items(2 * small, (30, 40)), weights)
    torch.testing.assert_close(margin_loss([large], [2 * large], large, "row"), expected)


@pytest.mark.parametrize(
    ("dense", "wanted", "expected"), [(False, None, [0]), (True, None, [1]), (True, [0, -1], [0, -1])]
)
def test_levels__default_to_the_deepest(dense, wanted, expected):
    assert MMANet(tiny.blueprint(2, dense=dense), distill_levels=wanted).levels == expected


def test_levels__that_are_not_there_are_named():
    with pytest.raises(ConfigError, match=r"distill_levels: level 3 is not there; the trunk has 1 fused level"):
        MMANet(tiny.blueprint(2), distill_levels=[3])


def test_mad__adds_up_over_levels():
    data, presence = tiny.batch(2, dense=True), tiny.mixed_presence(2)
    values = []
    for levels in ([0], [1], [0, 1]):
        torch.manual_seed(0)
        method = ready(2, dense=True, distill_levels=levels, warmup_epochs=1, mining_first=0, mining_last=0)
        values.append(terms_at(method, data, presence, 1)["mad"].value)
    torch.testing.assert_close(values[0] + values[1], values[2])


# --- the teacher ---


def test_teacher__is_trained_or_loaded():
    fit = Fit()
    MMANet(tiny.blueprint(2), teacher_epochs=7).on_fit_start(fit)
    MMANet(tiny.blueprint(2), teacher="runs/teacher/best.safetensors").on_fit_start(fit)
    MMANet(tiny.blueprint(2), mad_weight=0).on_fit_start(fit)
    assert fit.calls == [("train", "teacher", 7), ("load", "runs/teacher/best.safetensors")]


def test_teacher__is_unknown_to_weights_mode_and_optimiser():
    method = MMANet(tiny.blueprint(2))
    keys, parameters = set(method.state_dict()), len(list(method.parameters()))
    method.on_fit_start(Fit())
    method.train()
    assert set(method.state_dict()) == keys
    assert len(list(method.parameters())) == parameters
    networks = [method._teacher.trunk, method._teacher.head]  # the task is shared with the student
    assert not any(part.training for network in networks for part in network.modules())
    assert not any(parameter.requires_grad for parameter in method._teacher.parameters())


@pytest.mark.parametrize("dense", [False, True])
def test_teacher__is_untouched_by_steps(dense):
    method = ready(2, dense=dense)
    method.weak.replace([("rgb",)])
    before = copy.deepcopy(method._teacher.state_dict())
    tiny.train_steps(method, epoch=9, dense=dense)
    after = method._teacher.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_teacher__sees_what_was_observed_while_the_student_sees_the_mask(monkeypatch):
    method = ready(2)
    seen = []
    monkeypatch.setattr(
        method._teacher,
        "forward",
        lambda inputs, presence, size: (
            seen.append(presence) or Method.forward(method._teacher, inputs, presence, size=size)
        ),
    )
    data = tiny.batch(2)
    data.observed[0, 1] = False
    terms_at(method, data, tiny.shown(("rgb",), 2), 6)
    assert torch.equal(seen[0], data.observed)


def test_teacher__that_was_never_made_is_missed_by_name():
    method = MMANet(tiny.blueprint(2))
    with pytest.raises(RunFailed, match="mmanet has no teacher: on_fit_start"):
        terms_at(method, tiny.batch(2), tiny.mixed_presence(2), 6)


def test_mad__is_zero_for_a_student_that_equals_its_teacher():
    method = ready(2, mad_weight=30.0)
    method.load_state_dict(method._teacher.state_dict(), strict=False)
    data = tiny.batch(2)
    with torch.no_grad():
        features, fused = method.eval().trunk(data.inputs, data.observed)
        output = method.train().readout(features, fused, data.observed, ())
        assert method.losses(output, data, tiny.clock(6))["mad"].value.item() == pytest.approx(0, abs=1e-5)


# --- losses ---


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("count", COUNTS)
def test_every_trained_parameter_gets_a_finite_gradient(count, dense):
    method = ready(count, dense=dense)
    method.weak.replace(all_combinations(method.modalities)[:-1])
    data = tiny.batch(count, size=16, dense=dense)
    terms = terms_at(method, data, tiny.mixed_presence(count, 16), 6)
    sum(term.value for term in terms.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
    assert {name: term.role for name, term in terms.items()} == {"task": "task", "mad": "auxiliary"} | (
        {} if count == 1 else {"mar": "auxiliary"}
    )


def test_warm_up__has_the_task_term_alone():
    method = ready(2)
    method.weak.replace([("rgb",)])
    data, presence = tiny.batch(2), tiny.mixed_presence(2)
    assert set(terms_at(method, data, presence, 5)) == {"task"}
    assert set(terms_at(method, data, presence, 6)) == {"task", "mad", "mar"}
    assert set(terms_at(method.eval(), data, presence, 6)) == {"task"}


def test_weights_zero__equal_modality_dropout_bit_for_bit():
    torch.manual_seed(0)
    ours = tiny.train_steps(ready(3, mad_weight=0, mar_weight=0), epoch=9)
    torch.manual_seed(0)
    plain = tiny.train_steps(ModalityDropout(tiny.blueprint(3)), epoch=9)
    assert set(ours) == set(plain)
    assert all(torch.equal(ours[name], plain[name]) for name in plain)


def test_warm_up__trains_like_modality_dropout_bit_for_bit():
    torch.manual_seed(0)
    method = MMANet(tiny.blueprint(3))
    method.on_fit_start(Fit())
    ours = tiny.train_steps(method, epoch=5)
    torch.manual_seed(0)
    plain = tiny.train_steps(ModalityDropout(tiny.blueprint(3)), epoch=5)
    assert all(torch.equal(ours[name], plain[name]) for name in plain)


def test_mar__without_a_weak_sample_is_exactly_zero_in_value_and_gradient():
    method = ready(2, mad_weight=0)
    method.weak.replace([("depth",)])
    value = terms_at(method, tiny.batch(2), tiny.shown(("rgb",), 2), 6)["mar"].value
    value.backward()
    assert value.item() == 0
    assert not any(parameter.grad.any() for parameter in method.regularisation_head.parameters())


@pytest.mark.parametrize("form", ["masked", "outer"])
def test_mar__reads_the_second_head_in_both_forms(form):
    method = ready(2, mad_weight=0, mar_weight=0.5, mar_form=form)
    method.weak.replace([("depth",)])
    data, presence = tiny.batch(2), tiny.mixed_presence(2)
    output = method(data.inputs, presence)
    own = method.task.sample_losses(method.regularisation_head(output.fused, ()), data.target)
    keep = presence.tolist()
    expected = sum(loss for loss, row in zip(own, keep, strict=True) if row == [False, True]) / 8
    if form == "outer":
        expected = own.mean() * sum(row == [False, True] for row in keep)
    torch.testing.assert_close(method.losses(output, data, tiny.clock(6))["mar"].value, 0.5 * expected)


def test_ogm_scores__keep_the_exact_split_of_the_logits():
    method = ready(2)
    data = tiny.batch(2)
    output = method(data.inputs, data.observed)
    groups = method.trunk.parameter_groups()
    view = StepView(method, data, data.observed, tiny.clock(), groups, torch.Tensor.backward)
    view.output = output
    assert view.unimodal.source == "split"


@pytest.mark.parametrize("dense", [False, True])
def test_mixed_precision__gives_terms_in_float32_and_finite_gradients(dense):
    method = ready(2, dense=dense)
    method.weak.replace([("rgb",)])
    data = tiny.batch(2, size=16, dense=dense)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = terms_at(method, data, tiny.mixed_presence(2, 16), 6)
    assert len(terms) == 3
    assert {term.value.dtype for term in terms.values()} == {torch.float32}
    sum(term.value for term in terms.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


# --- mining ---

SHARES = {("rgb", "depth"): 68, ("rgb", "ir"): 50, ("depth", "ir"): 72, ("rgb", "depth", "ir"): 70}


def test_mining__looks_at_the_mining_epochs_and_decides_at_the_end_of_the_warm_up():
    method, evaluate = MMANet(tiny.blueprint(3)), Evaluate(SHARES)
    for epoch in range(9):
        method.on_epoch_end(evaluate, tiny.clock(epoch))
        assert len(evaluate.asked) == min(max(epoch - 1, 0), 3)  # epochs 2, 3, 4
        assert method.weak.names == (["rgb", "ir", "rgb+ir"] if epoch >= 5 else [])
    assert evaluate.asked[0] == [("rgb", "depth"), ("rgb", "ir"), ("depth", "ir"), ("rgb", "depth", "ir")]
    assert method.drifts["rgb", "ir"] == pytest.approx(3 * 1.98681e-2, rel=1e-4)


def test_missing_one__is_what_all_combinations_hold_and_quick_for_many():
    for count in COUNTS:
        names = tiny.NAMES[:count]
        assert missing_one(names) == [combo for combo in all_combinations(names) if len(combo) == count - 1]
    assert len(missing_one([f"m{place}" for place in range(60)])) == 60


def test_mining__in_two_modalities_finds_a_single_one():
    method = MMANet(tiny.blueprint(2))
    evaluate = Evaluate({("rgb",): 69, ("depth",): 20, ("rgb", "depth"): 70})
    for epoch in range(6):
        method.on_epoch_end(evaluate, tiny.clock(epoch))
    assert method.weak.names == ["depth"]


@pytest.mark.parametrize(("count", "options"), [(1, {}), (3, {"mar_weight": 0})])
def test_mining__is_off_without_candidates_or_weight(count, options):
    method, evaluate = MMANet(tiny.blueprint(count), **options), Evaluate({})
    for epoch in range(6):
        method.on_epoch_end(evaluate, tiny.clock(epoch))
    assert evaluate.asked == []
    assert method.weak.names == []
    assert method.regularisation_head is None


def test_mining__without_a_mining_epoch_finds_nothing():
    method = MMANet(tiny.blueprint(2))
    method.on_epoch_end(Evaluate({}), tiny.clock(5))
    assert method.weak.names == []


# --- state ---


def test_state__survives_json_in_and_after_mining():
    method, evaluate = MMANet(tiny.blueprint(3)), Evaluate(SHARES)
    for epoch in (2, 3):
        method.on_epoch_end(evaluate, tiny.clock(epoch))
    resumed = MMANet(tiny.blueprint(3))
    resumed.load_method_state(json.loads(json.dumps(method.method_state())))
    assert resumed.drifts == method.drifts
    for epoch in (4, 5):
        method.on_epoch_end(evaluate, tiny.clock(epoch))
        resumed.on_epoch_end(evaluate, tiny.clock(epoch))
    assert resumed.method_state() == method.method_state()
    again = MMANet(tiny.blueprint(3))
    again.load_method_state(json.loads(json.dumps(method.method_state())))
    assert torch.equal(again.weak.table, method.weak.table)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("count", COUNTS)
def test_deployable__gives_equal_output_on_every_combination(count, dense):
    method = ready(count, dense=dense)
    tiny.train_steps(method, epoch=6, dense=dense)
    deployed = method.eval().deployable()
    data = tiny.batch(count, dense=dense)
    for combination in all_combinations(method.modalities):
        presence = tiny.shown(combination, count)
        assert torch.equal(tiny.run_forward(method, data, presence), tiny.run_forward(deployed, data, presence))
    assert not any("regularisation" in key for key in deployed.state_dict())
    assert type(deployed) is Method


# --- options ---


def test_options__defaults_are_those_of_the_constructor():
    parameters = inspect.signature(MMANet).parameters
    assert {name: parameters[name].default for name in MMANetOptions.model_fields} == MMANetOptions().model_dump()
    assert all(field.description for field in MMANetOptions.model_fields.values())


def test_options__refuse_unknown_keys_and_mining_outside_the_warm_up():
    with pytest.raises(ValidationError, match="mar_wieght"):
        MMANetOptions(mar_wieght=0.1)
    with pytest.raises(ValidationError, match="mining_last 4 < warmup_epochs 4 does not hold"):
        MMANetOptions(warmup_epochs=4)
    assert MMANetOptions(warmup_epochs=4, mar_weight=0).warmup_epochs == 4


def test_component__carries_its_source():
    found = []
    mmanet.robustmm_register_methods(found.append)
    assert (found[0].name, found[0].fidelity, found[0].build.sampler) == ("mmanet", "code", "uniform")
    assert "2304.08028" in found[0].source
