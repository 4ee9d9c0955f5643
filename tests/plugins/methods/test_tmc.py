"""TMC: the released code's values and gradients, the worked example of the two opinions, and what the rule promises."""

import json
import math
from pathlib import Path

import pytest
import tiny_models as tiny
import torch
from robustmm_plugins.methods import tmc
from robustmm_plugins.methods.tmc import TMC, annealed, to_evidence

from robustmm import Batch, Clock, SegmentationTask

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "tmc.json").read_text())["total"]


def ready(count, *, task=None, dense=False, **options):
    torch.manual_seed(0)
    return TMC(tiny.blueprint(count, task=task, dense=dense), **options).train()


def decided(method, opinions, presence, *, size=()):
    """The output for opinions that heads would have given."""
    method.head.opinions = lambda features, size: opinions
    return method.readout({}, [], presence, size)


def labelled(target, count):
    observed = torch.ones(len(target), count, dtype=torch.bool)
    return Batch({}, observed, target, tuple(map(str, range(len(target)))), torch.arange(len(target)))


def at_epoch(epoch):
    return Clock(epoch=epoch, step=1, epochs=500, steps_per_epoch=1)


def test_losses__equal_the_released_code_with_its_gradients(monkeypatch):
    monkeypatch.setattr(tmc, "to_evidence", lambda outputs, activation: outputs)  # as the golden values were made
    evidence = torch.tensor(GOLDEN["evidence"]).transpose(0, 1).requires_grad_()  # (B, M, C)
    target = torch.tensor(GOLDEN["target"])
    method = ready(3, anneal_epochs=GOLDEN["annealing_epochs"])
    output = decided(method, evidence, torch.ones(4, 3).bool())
    terms = method.losses(output, labelled(target, 3), at_epoch(GOLDEN["epoch"] - 1))  # there the first epoch is 1
    total = sum(term.value for term in terms.values())
    total.backward()
    torch.testing.assert_close(output.extras["fused_evidence"], torch.tensor(GOLDEN["fused"]))
    assert float(total.detach()) == pytest.approx(GOLDEN["loss"], rel=1e-6)
    expected = torch.tensor(GOLDEN["gradient"]).transpose(0, 1)
    torch.testing.assert_close(evidence.grad, expected, rtol=1e-5, atol=1e-6)


def test_losses__equal_the_worked_example():
    evidence = torch.tensor([[[4.0, 0.0, 0.0], [1.0, 2.0, 0.0]]])
    method = ready(2, activation="relu", anneal_epochs=50)
    output = decided(method, evidence, torch.ones(1, 2).bool())
    terms = method.losses(output, labelled(torch.tensor([0]), 2), at_epoch(24))
    values = {name: round(float(term.value), 6) for name, term in terms.items()}
    assert values == {"task": 0.772827, "evidence/rgb": 0.366667, "evidence/depth": 1.59588}
    assert [term.role for term in terms.values()] == ["task", "auxiliary", "auxiliary"]
    assert output.extras["uncertainty"].tolist() == pytest.approx([0.264706], abs=1e-6)
    assert output.extras["conflict"].tolist() == pytest.approx([0.190476], abs=1e-6)


def test_logits__are_the_log_of_the_expected_probability_up_to_a_constant():
    evidence = torch.tensor([[[4.0, 0.0, 0.0], [1.0, 2.0, 0.0]]])
    output = decided(ready(2, activation="relu"), evidence, torch.ones(1, 2).bool())
    alpha = output.extras["fused_evidence"] + 1  # (22/3, 3, 1)
    torch.testing.assert_close(output.logits.softmax(dim=1), alpha / alpha.sum(dim=1))
    torch.testing.assert_close(alpha, torch.tensor([[22 / 3, 3.0, 1.0]]))


def test_absent_view__changes_no_bit_and_gets_no_gradient():
    method, data = ready(2), tiny.batch(2)
    rgb_alone = tiny.shown(("rgb",), 2)
    output = method(data.inputs, rgb_alone)
    assert torch.equal(output.extras["fused_evidence"], output.extras["evidence"][:, 0])
    assert output.extras["conflict"].abs().max() == 0
    assert not output.extras["evidence"][:, 1].any()
    terms = method.losses(output, data, tiny.clock())
    assert terms["evidence/depth"].value.item() == 0
    torch.testing.assert_close(terms["task"].value, terms["evidence/rgb"].value)
    sum(term.value for term in terms.values()).backward()
    depth = [*method.trunk.encoders["depth"].parameters(), *method.head.heads["depth"].parameters()]
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in depth)


def test_own_losses__are_means_over_the_samples_that_show_the_modality():
    method, data, presence = ready(2), tiny.batch(2), tiny.mixed_presence(2)
    output = method(data.inputs, presence)
    own = method.losses(output, data, at_epoch(0))["evidence/depth"].value
    rows = presence[:, 1]
    part = decided(ready(2), output.extras["opinions"][rows], presence[rows])
    batch = Batch({}, presence[rows], data.target[rows], ("a",) * int(rows.sum()), data.index[rows])
    torch.testing.assert_close(own, ready(2).losses(part, batch, at_epoch(0))["evidence/depth"].value)


def test_row_without_any_modality__is_uniform_and_unsure():
    output = ready(2).eval()(tiny.batch(2).inputs, torch.zeros(8, 2).bool())
    assert not output.logits.any()
    assert (output.extras["uncertainty"] == 1).all()


def test_contradiction__does_not_raise_the_uncertainty_but_the_conflict():
    # Documented behaviour of the rule: two certain views that exclude each other stay certain of both.
    evidence = torch.tensor([[[1e6, 0.0, 0.0], [0.0, 1e6, 0.0]]])
    output = decided(ready(2, activation="relu"), evidence, torch.ones(1, 2).bool())
    torch.testing.assert_close(output.extras["fused_evidence"], torch.tensor([[1e6, 1e6, 0.0]]))
    assert float(output.extras["uncertainty"]) < 2e-6
    assert float(output.extras["conflict"]) > 0.999


@pytest.mark.parametrize(("activation", "expected"), [("softplus", math.log1p(math.e)), ("relu", 1), ("exp", math.e)])
def test_activations(activation, expected):
    outputs = torch.tensor([1.0, -1e4, 1e4], dtype=torch.bfloat16)
    evidence = to_evidence(outputs, activation)
    assert evidence.dtype == torch.float32
    assert float(evidence[0]) == pytest.approx(expected, rel=1e-6)
    assert float(evidence[1]) == 0
    assert evidence.isfinite().all()


def test_penalty__rises_to_its_full_weight():
    assert annealed(0, 50) == 0.02
    assert annealed(24, 50) == 0.5
    assert annealed(49, 50) == annealed(400, 50) == annealed(0, 1) == 1


def test_weights__scale_the_terms():
    data = tiny.batch(2)
    terms = {
        weight: (method := ready(2, fused_weight=weight, view_weight=weight - 1)).losses(
            method(data.inputs, data.observed), data, tiny.clock()
        )
        for weight in (1.0, 2.0)
    }
    assert list(terms[1.0]) == ["task"]
    torch.testing.assert_close(terms[2.0]["task"].value, 2 * terms[1.0]["task"].value)


def test_dense__counts_valid_pixels_alone():
    task = SegmentationTask(["a", "b", "c"])
    method, data = ready(2, task=task, dense=True), tiny.batch(2, dense=True)
    data.target[:, :2] = 255
    output = method(data.inputs, data.observed, size=tiny.GRID)
    assert output.extras["uncertainty"].shape == (8, *tiny.GRID)
    found = method.losses(output, data, tiny.clock())["task"].value
    upper = decided(ready(2, task=task, dense=True), output.extras["opinions"][..., 2:, :], data.observed)
    valid = Batch({}, data.observed, data.target[:, 2:], data.ids, data.index)
    torch.testing.assert_close(found, method.losses(upper, valid, tiny.clock())["task"].value)


def test_mixed_precision__keeps_evidence_and_terms_in_float32():
    method, data = ready(3), tiny.batch(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = method(data.inputs, tiny.mixed_presence(3))
        terms = method.losses(output, data, tiny.clock())
    assert output.logits.dtype == torch.float32
    assert all(term.value.dtype == torch.float32 and term.value.isfinite() for term in terms.values())
    sum(term.value for term in terms.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in method.parameters())
