"""One-stage distillation: transfer against the sibling's code, cross translation, what reaches what, two stages."""

import json
from functools import partial
from pathlib import Path

import pytest
import tiny_models as tiny
import torch
from robustmm_plugins.methods._hallucination import HallucinationTrunk
from robustmm_plugins.methods._joint_adaptation import joint_adaptation, rows_of
from robustmm_plugins.methods.one_stage_distillation import OneStageDistillation

from robustmm import (
    VOID,
    Batch,
    Clock,
    ConfigError,
    RunFailed,
    SegmentationTask,
    joint_maximum_mean_discrepancy,
    logit_distillation,
    soft_target_distillation,
    total,
)
from robustmm.engine.evaluate import evaluate_combinations
from robustmm.testing.contract import through_checkpoint
from robustmm.testing.tiny import Setting
from robustmm.testing.tiny import batch as quantities_batch
from robustmm.testing.tiny import blueprint as quantities_blueprint

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "one_stage.json").read_text(encoding="utf-8"))


class Fit:
    """Leaves teachers as they are made, with BatchNorm statistics of their own."""

    def __init__(self):
        self.calls = []

    def train(self, name, method, *, epochs=None):
        self.calls.append(("train", name, method.modalities, epochs))
        data = tiny.batch(4, dense=method.task.dense)
        own = {modality: data.inputs[modality] for modality in method.modalities} if method.task.dense else None
        if own is not None:
            method.train()(own, data.observed[:, :1], size=tiny.GRID)

    def load(self, path, method):
        self.calls.append(("load", path, method.modalities))


def ready(count, *, dense=False, fit=None, **options):
    torch.manual_seed(0)
    method = OneStageDistillation(tiny.blueprint(count, dense=dense), **{"available": "rgb", **options})
    method.on_fit_start(fit or Fit())
    return method.train()


def terms_of(method, data, presence=None, at=None):
    output = method.train_output(data, data.observed if presence is None else presence)
    return output, method.losses(output, data, at or tiny.clock())


def with_observed(data: Batch, observed) -> Batch:
    return Batch(data.inputs, observed, data.target, data.ids, data.index)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


# --- formulas -------------------------------------------------------------------------------------------------------


def test_golden__joint_adaptation_of_the_sibling_code():
    case = GOLDEN["joint"]
    features, logits = tensor(case["source"]).requires_grad_(), tensor(case["student"]).requires_grad_()
    loss = joint_adaptation(
        (features, tensor(case["target"])),
        (logits, tensor(case["teacher"])),
        partial(soft_target_distillation, temperature=2.0),
        mmd_weight=case["alpha"],
        kl_weight=case["beta"],
    )
    loss.backward()
    assert loss.item() == pytest.approx(case["loss"], rel=1e-9)
    torch.testing.assert_close(features.grad, tensor(case["gradient_features"]), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(logits.grad, tensor(case["gradient_logits"]), rtol=1e-7, atol=1e-9)


def test_joint_adaptation__worked_by_hand():
    features = tensor([[0, 0], [1, 0]]), tensor([[0, 1], [1, 1]])
    logits = tensor([[1, 0], [0, 1]]), tensor([[2, 0], [0, 2]])
    divergence = partial(soft_target_distillation, temperature=2.0)
    assert joint_adaptation(features, logits, divergence, mmd_weight=2, kl_weight=1).item() == pytest.approx(7.235275)
    joint = joint_maximum_mean_discrepancy(*features, logits[0].softmax(1), logits[1].softmax(1))
    assert joint.item() == pytest.approx(3.322820, rel=1e-6)


def test_joint_adaptation__without_rows_is_0():
    nothing = torch.zeros(0, 3, requires_grad=True), torch.zeros(0, 3)
    loss = joint_adaptation(nothing, nothing, logit_distillation, mmd_weight=2, kl_weight=1)
    loss.backward()
    assert loss.item() == 0


def test_rows__are_samples_or_positions():
    keep = torch.tensor([True, False, True])
    assert rows_of(torch.arange(6).view(3, 2), keep).tolist() == [[0, 1], [4, 5]]
    maps = torch.arange(3 * 2 * 1 * 2).view(3, 2, 1, 2)
    assert rows_of(maps, keep).tolist() == [[0, 2], [1, 3], [8, 10], [9, 11]]


class Times(torch.nn.Module):
    """A translator that multiplies."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


class Constant(torch.nn.Module):
    """A stem of one number."""

    def __init__(self, value):
        super().__init__()
        self.value, self.feature_channels = value, {"a": (1,)}

    def forward(self, inputs, presence):
        return {"a": [torch.full((len(presence), 1), self.value)]}, []


def hand_trunk(*, cross):
    stems = {"a": Constant(1.0), "p": Constant(2.0)}
    trunk = HallucinationTrunk("a", stems, {"a": 1, "p": 1}, dense=False, cross=cross)
    trunk.translators["a"], trunk.translators["p"] = Times(2), Times(3)
    return trunk


def test_cross_translation__worked_by_hand():
    trunk = hand_trunk(cross=True)
    _, fused = trunk({"a": torch.zeros(1, 1)}, torch.ones(1, 2).bool())
    assert trunk.joined(fused).tolist() == [[3.0, 4.5]]
    assert trunk.of_stem(fused, "a").tolist() == [[2.0, 3.0]]
    assert trunk.of_stem(fused, "p").tolist() == [[4.0, 6.0]]
    assert trunk.restored(fused, "p").tolist() == [[6.0]]
    torch.testing.assert_close(trunk.joined(fused), (trunk.of_stem(fused, "a") + trunk.of_stem(fused, "p")) / 2)


def test_without_cross_translation__each_stem_meets_its_own_translator():
    trunk = hand_trunk(cross=False)
    _, fused = trunk({"a": torch.zeros(1, 1)}, torch.ones(1, 2).bool())
    assert trunk.joined(fused).tolist() == [[2.0, 6.0]]
    assert trunk.restored(fused, "p").tolist() == [[6.0]]


# --- terms ----------------------------------------------------------------------------------------------------------


def test_terms__and_their_roles():
    _, terms = terms_of(ready(2), tiny.batch(2))
    assert {name: term.role for name, term in terms.items()} == {
        "task": "task",
        "consistency": "auxiliary",
        "hallucination": "auxiliary",
        "transfer": "auxiliary",
    }
    assert list(terms_of(ready(1), tiny.batch(1))[1]) == ["task"]
    off = {"consistency_weight": 0.0, "hallucination_weight": 0.0, "transfer_weight": 0.0}
    assert list(terms_of(ready(2, **off), tiny.batch(2))[1]) == ["task"]


@pytest.mark.parametrize("dense", [False, True])
def test_terms__equal_their_formulas(dense):
    method, data = ready(2, dense=dense, positions=10_000), tiny.batch(2, dense=dense)
    output, terms = terms_of(method, data)
    trunk, size = method.trunk, method.task.target_size(data.target)
    torch.testing.assert_close(terms["task"].value, torch.nn.functional.cross_entropy(output.logits, data.target))
    apart = 0
    for name in method.modalities:
        logits = method.head([*output.fused[:-1], trunk.of_stem(output.fused, name)], size)
        apart = apart + torch.nn.functional.mse_loss(logits, output.logits)
    torch.testing.assert_close(terms["consistency"].value, apart)
    restored = trunk.restored(output.fused, "depth")
    logits = method.own_heads["depth"]([*output.features["depth"][:-1], restored], size)
    torch.testing.assert_close(terms["hallucination"].value, torch.nn.functional.cross_entropy(logits, data.target))
    known = method._teachers["depth"]({"depth": data.inputs["depth"]}, data.observed[:, 1:], size=size)
    everything = torch.ones(len(data)).bool()
    transfer = joint_adaptation(
        (rows_of(restored, everything), rows_of(known.features["depth"][-1], everything)),
        (rows_of(logits, everything), rows_of(known.logits, everything)),
        partial(soft_target_distillation, temperature=2.0),
        mmd_weight=2.0,
        kl_weight=1.0,
    )
    torch.testing.assert_close(terms["transfer"].value, transfer)


def test_terms__of_several_privileged_modalities_are_their_mean():
    method, data = ready(3), tiny.batch(3)
    output, terms = terms_of(method, data)
    keep = torch.ones(len(data)).bool()
    moved = [
        method._transfer(name, method._own_logits(name, output, data)[0], output, data, keep)
        for name in ("depth", "ir")
    ]
    torch.testing.assert_close(terms["transfer"].value, (moved[0] + moved[1]) / 2)


def test_jmmd__is_the_discrepancy_of_both_together():
    method, data = ready(2, adaptation="jmmd", mmd_weight=3.0), tiny.batch(2)
    output, terms = terms_of(method, data)
    restored = method.trunk.restored(output.fused, "depth")
    known = method._teachers["depth"]({"depth": data.inputs["depth"]}, data.observed[:, 1:])
    own = method.own_heads["depth"]([restored], ())
    joint = joint_maximum_mean_discrepancy(
        restored, known.features["depth"][-1], own.softmax(1), known.logits.softmax(1)
    )
    torch.testing.assert_close(terms["transfer"].value, 3 * joint)


def test_jmmd__works_on_maps():
    method, data = ready(2, dense=True, adaptation="jmmd", positions=20), tiny.batch(2, dense=True)
    _, terms = terms_of(method, data)
    total(terms).backward()
    assert 0 < terms["transfer"].value.item() < 20


def test_positions__depend_on_the_step_alone():
    method, data = ready(2, dense=True, positions=6), tiny.batch(2, dense=True)
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append(terms_of(method, data)[1]["transfer"].value.item())
    assert values[0] == values[1] != values[2]


def test_regression__compares_outputs():
    torch.manual_seed(0)
    setting = Setting(2, quantities=2)
    method = OneStageDistillation(quantities_blueprint(setting), available="m0", mmd_weight=0.0).train()
    method.on_fit_start(Fit())
    data = quantities_batch(setting)
    output, terms = terms_of(method, data)
    known = method._teachers["m1"]({"m1": data.inputs["m1"]}, data.observed[:, 1:])
    own = method._own_logits("m1", output, data)[0]
    torch.testing.assert_close(terms["transfer"].value, torch.nn.functional.mse_loss(own, known.logits))


# --- what reaches what ----------------------------------------------------------------------------------------------


def test_one_stage__fused_loss_reaches_the_hallucinating_stem():
    method, data = ready(2, transfer_weight=0.0, hallucination_weight=0.0), tiny.batch(2)
    terms_of(method, data)[1]["task"].value.backward()
    assert all(parameter.grad.any() for parameter in method.trunk.stems["depth"].encoders.parameters())


@pytest.mark.parametrize("dense", [False, True])
def test_teacher__is_frozen_and_no_part_of_the_method(dense):
    method, data = ready(2, dense=dense), tiny.batch(2, dense=dense)
    teacher = method._teachers["depth"]
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    total(terms_of(method, data)[1]).backward()
    method.train()
    assert not teacher.training
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in teacher.parameters())
    assert all(value.equal(before[name]) for name, value in teacher.state_dict().items())
    assert not any("teacher" in name for name in method.state_dict())


def test_evaluation__needs_no_privileged_input():
    method, data = ready(3).eval(), tiny.batch(3)
    complete = method(data.inputs, data.observed).logits
    alone = method({"rgb": data.inputs["rgb"]}, data.observed).logits
    assert complete.equal(alone)
    elsewhere = {name: x if name == "rgb" else x + torch.nan for name, x in data.inputs.items()}
    assert method(elsewhere, data.observed & torch.tensor([True, False, False])).logits.equal(complete)


def test_combinations_without_the_available_modality__are_degenerate():
    method, data = ready(2), tiny.batch(2)
    found = evaluate_combinations(method, [data], torch.device("cpu")).combinations
    right = [found[combination].compute()["accuracy"] for combination in (("rgb",), ("rgb", "depth"))]
    assert right[0] == right[1]
    method.eval()
    assert not method(data.inputs, torch.tensor([False, True]).expand(len(data), -1)).logits.any()


def test_samples_without_the_available_modality__count_nowhere():
    method, data = ready(2), tiny.batch(2)
    observed = data.observed.clone()
    observed[2:5, 0] = False
    first = terms_of(method, with_observed(data, observed))[1]
    other = {"rgb": data.inputs["rgb"].clone(), "depth": data.inputs["depth"].clone()}
    other["depth"][2:5] += 3
    target = data.target.clone()
    target[2:5] = (target[2:5] + 1) % tiny.CLASSES
    again = ready(2)
    second = terms_of(again, Batch(other, observed, target, data.ids, data.index))[1]
    for name, term in first.items():
        assert term.value.item() == second[name].value.item(), name
    for name, value in method.trunk.state_dict().items():  # nor in BatchNorm
        assert value.equal(again.trunk.state_dict()[name]), name


def test_samples_without_the_privileged_modality__stay_out_of_its_transfer():
    method, data = ready(2), tiny.batch(2)
    observed = data.observed.clone()
    observed[:3, 1] = False
    plain = terms_of(ready(2), data)[1]
    some = terms_of(method, with_observed(data, observed))[1]
    for name in ("task", "consistency", "hallucination"):
        assert some[name].value.item() == plain[name].value.item()
    other = {"rgb": data.inputs["rgb"], "depth": data.inputs["depth"].clone()}
    other["depth"][:3] = 7.0
    again = terms_of(ready(2), Batch(other, observed, data.target, data.ids, data.index))[1]
    assert again["transfer"].value.item() == some["transfer"].value.item()
    nobody = observed & torch.tensor([True, False])
    assert terms_of(ready(2), with_observed(data, nobody))[1]["transfer"].value.item() == 0


def test_void_pixels__stay_out_of_the_divergence():
    torch.manual_seed(0)
    task = SegmentationTask(["a", "b", "c"])
    method = OneStageDistillation(tiny.blueprint(2, dense=True, task=task), available="rgb", mmd_weight=0.0).train()
    method.on_fit_start(Fit())
    data = tiny.batch(2, dense=True)
    data.target[:, :2] = VOID
    output, terms = terms_of(method, data)
    known = method._teachers["depth"]({"depth": data.inputs["depth"]}, data.observed[:, 1:], size=tiny.GRID)
    own = method._own_logits("depth", output, data)[0]
    student, teacher = (one[:, :, 2:].movedim(1, -1).flatten(0, -2) for one in (own, known.logits))
    expected = soft_target_distillation(student, teacher, temperature=2.0)
    torch.testing.assert_close(terms["transfer"].value, expected)


def test_autocast__terms_are_finite_and_float32():
    method, data = ready(2), tiny.batch(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = terms_of(method, data)[1]
    for name, term in terms.items():
        assert term.value.dtype == torch.float32, name
        assert term.value.isfinite()
    total(terms).backward()


# --- teachers, stages, deployment -----------------------------------------------------------------------------------


def test_teachers__are_trained_or_loaded_one_per_privileged_modality():
    fit = Fit()
    ready(3, fit=fit, available="depth", teachers={"ir": "ir.safetensors"}, teacher_epochs=4)
    assert fit.calls == [("train", "teacher_rgb", ("rgb",), 4), ("load", "ir.safetensors", ("ir",))]
    fit = Fit()
    ready(3, fit=fit, transfer_weight=0.0)
    assert fit.calls == []


def test_losses__without_a_teacher_say_so():
    method = OneStageDistillation(tiny.blueprint(2), available="rgb").train()
    data = tiny.batch(2)
    with pytest.raises(RunFailed, match="one_stage_distillation has no teacher"):
        method.losses(method.train_output(data, data.observed), data, tiny.clock())


def test_options__that_name_no_modality_are_refused():
    with pytest.raises(ConfigError, match=r"method\.available: no modality 'rbg' - did you mean 'rgb'\? \(the run has"):
        OneStageDistillation(tiny.blueprint(2), available="rbg")
    with pytest.raises(ConfigError, match=r"method\.teachers\.rgb: no privileged modality 'rgb'"):
        OneStageDistillation(tiny.blueprint(2), available="rgb", teachers={"rgb": "x"})


def at(epoch):
    return Clock(epoch, epoch, 6, 1)


def test_two_stages__transfer_then_a_head_on_frozen_features():
    method, data = ready(2, two_stage=True), tiny.batch(2)
    assert list(terms_of(method, data, at=at(0))[1]) == ["available", "hallucination", "transfer"]
    first = terms_of(method, data, at=at(2))[1]
    total(first).backward()
    assert all(parameter.grad is None for parameter in method.head.parameters())
    method.on_epoch_end(None, at(2))
    method.zero_grad()
    method.train()
    before = {name: value.clone() for name, value in method.trunk.state_dict().items()}
    second = terms_of(method, data, at=at(3))[1]
    assert list(second) == ["task"]
    second["task"].value.backward()
    assert all(parameter.grad is not None for parameter in method.head.parameters())
    assert all(parameter.grad is None for parameter in method.trunk.parameters())
    assert all(value.equal(before[name]) for name, value in method.trunk.state_dict().items())


def test_two_stages__survive_a_checkpoint():
    method = ready(2, two_stage=True, transfer_epochs=1)
    assert method.method_state() == {"frozen": False}
    method.on_epoch_end(None, at(0))
    again = ready(2, two_stage=True, transfer_epochs=1)
    again.load_method_state(through_checkpoint(method.method_state()))
    assert again.frozen
    assert not again.train().trunk.training
    assert not any(parameter.requires_grad for parameter in again.trunk.parameters())


def test_deployed__has_neither_teacher_nor_transfer_head():
    method, data = ready(2).eval(), tiny.batch(2)
    deployed = method.deployable()
    assert len(deployed.own_heads) == 0
    assert len(method.own_heads) == 1
    assert deployed._teachers == {}
    assert deployed(data.inputs, data.observed).logits.equal(method(data.inputs, data.observed).logits)


def test_available_modality__owns_every_parameter_of_the_trunk():
    groups = ready(2, available="depth").trunk.parameter_groups()
    assert groups["rgb"] == []
    assert len(groups["depth"]) == len(list(ready(2).trunk.parameters()))


def test_order_of_modalities__does_not_matter():
    """Columns in another order, with the head's columns in that order too, give the same terms."""
    setting, found = Setting(2), []
    for names in (("m0", "m1"), ("m1", "m0")):
        torch.manual_seed(0)
        method = OneStageDistillation(quantities_blueprint(setting, names=names), available="m0").train()
        method.on_fit_start(Fit())
        data = quantities_batch(setting, names=names)
        if not found:
            state, teachers = {key: value.clone() for key, value in method.state_dict().items()}, method._teachers
        else:
            width = method.trunk.widths["m0"]
            state["head.linear.weight"] = state["head.linear.weight"].roll(width, dims=1)
            method.load_state_dict(state)
            method._teachers = teachers
        found.append(terms_of(method, data)[1])
    for name, term in found[0].items():
        torch.testing.assert_close(found[1][name].value, term.value)
