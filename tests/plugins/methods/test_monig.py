"""MoNIG: the released code's loss and gradients, the worked example, logits that are a Student-t, absent modalities."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_models as tiny
import torch
from robustmm_plugins.methods.monig import MoNIG, distributions, predictive

from robustmm import Batch, NormalInverseGamma, RegressionTask, split_student_t, student_t_nll

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "monig.json").read_text())["total"]
#: Mean, count, shape and scale of the two modalities of the worked example.
FIRST, SECOND = (1.0, 2.0, 2.0, 1.0), (3.0, 1.0, 1.5, 0.5)


def ready(count, *, targets=1, **options):
    torch.manual_seed(0)
    task = RegressionTask([f"y{place}" for place in range(targets)])
    return MoNIG(tiny.blueprint(count, task=task), **options).train()


def decided(method, opinions, presence):
    """The output for what heads would have given."""
    method.head.opinions = lambda features, size: opinions
    return method.readout({}, [], presence, ())


def measured(count, *, targets=1):
    data = tiny.batch(count)
    return replace(data, target=torch.randn(8, targets, generator=torch.Generator().manual_seed(1)).squeeze(1))


def raw(*parameters):
    """Outputs of a head that stand for a distribution: mean, count, shape, scale."""
    mean, *positive = torch.tensor(parameters)
    count, shape, scale = (value - shift for value, shift in zip(positive, (0.0, 1.0, 0.0), strict=True))
    return torch.stack([mean, *((value - 1e-6).expm1().log() for value in (count, shape, scale))])


def worked_example(**options):
    method = ready(2, **options)
    output = decided(method, torch.stack([raw(*FIRST), raw(*SECOND)])[None], torch.ones(1, 2).bool())
    data = Batch({}, torch.ones(1, 2).bool(), torch.tensor([1.5]), ("a",), torch.tensor([0]))
    return output, method.losses(output, data, tiny.clock())


def test_losses__equal_the_released_code_with_its_gradients(monkeypatch):
    from_raw = NormalInverseGamma.from_raw
    monkeypatch.setattr(NormalInverseGamma, "from_raw", lambda outputs: from_raw(outputs, minimum=0.0))
    outputs = torch.tensor(GOLDEN["raw"]).transpose(0, 1).requires_grad_()  # (B, M, 4)
    target = torch.tensor(GOLDEN["target"])
    method = ready(3, risk_weight=GOLDEN["risk"])
    output = decided(method, outputs, torch.ones(3, 3).bool())
    data = Batch({}, torch.ones(3, 3).bool(), target, ("a", "b", "c"), torch.arange(3))
    total = sum(term.value for term in method.losses(output, data, tiny.clock()).values())
    total.backward()
    assert total.item() == pytest.approx(GOLDEN["loss"], rel=1e-6)
    gradient = torch.tensor(GOLDEN["gradient"]).transpose(0, 1)
    torch.testing.assert_close(outputs.grad, gradient, rtol=1e-4, atol=1e-6)


def test_worked_example():
    output, terms = worked_example()
    expected = torch.tensor([[[1.666667], [3.0], [4.0], [2.833333]]])
    torch.testing.assert_close(output.extras["distribution"], expected, rtol=1e-5, atol=1e-5)
    assert output.extras["aleatoric"].item() == pytest.approx(0.944444, rel=1e-5)
    assert output.extras["epistemic"].item() == pytest.approx(0.314815, rel=1e-5)
    values = {name: term.value.item() for name, term in terms.items()}
    assert values == pytest.approx({"task": 0.954710, "unimodal/rgb": 1.067095, "unimodal/depth": 2.358200}, rel=1e-5)
    assert [term.role for term in terms.values()] == ["task", "auxiliary", "auxiliary"]


def test_weights__scale_the_terms():
    _, terms = worked_example(risk_weight=0.0, fused_weight=2.0, unimodal_weight=0.0)
    assert {name: term.value.item() for name, term in terms.items()} == {"task": pytest.approx(2 * 0.938043, rel=1e-5)}


def test_evidence__of_the_paper_swaps_count_and_shape():
    _, code = worked_example(risk_weight=1.0)
    _, paper = worked_example(risk_weight=1.0, evidence="paper")
    # The error of the second is 1.5: 2 * 1 + 1.5 = 3.5, and 1 + 2 * 1.5 = 4.
    difference = paper["unimodal/depth"].value - code["unimodal/depth"].value
    assert difference.item() == pytest.approx(1.5 * 0.5, rel=1e-5)


def test_logits__are_the_predictive_distribution_in_the_layout_of_the_task():
    method, data = ready(2, targets=2, risk_weight=0.0), measured(2, targets=2)
    output = method(data.inputs, tiny.mixed_presence(2))
    assert output.logits.shape == (8, 6)
    student_t = split_student_t(output.logits, 2)
    torch.testing.assert_close(student_t.location, output.extras["distribution"][:, 0])
    term = method.losses(output, data, tiny.clock())["task"]
    torch.testing.assert_close(term.value, student_t_nll(student_t, data.target).mean())


def test_several_targets__are_distributions_of_their_own():
    outputs = torch.stack([raw(*FIRST), raw(*SECOND)], dim=1).flatten()[None, None]  # T = 2: means first, then counts
    found = distributions(outputs)[0]
    expected = NormalInverseGamma(*(torch.tensor([pair]) for pair in zip(FIRST, SECOND, strict=True)))
    for own, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-5)


def test_unit_of_the_target__does_not_matter_to_the_loss():
    data = measured(2)
    terms = []
    for scale in (1.0, 1000.0):
        method, target = ready(2), 5 + scale * data.target
        method.task.fit(target.unbind())
        scaled = replace(data, target=target)
        terms.append(method.losses(method(data.inputs, data.observed), scaled, tiny.clock())["task"].value)
    torch.testing.assert_close(terms[0], terms[1], rtol=1e-4, atol=1e-5)


def test_absent_modality__is_left_out_and_gets_no_gradient():
    method, data = ready(2), measured(2)
    output = method(data.inputs, tiny.shown(("rgb",), 2))
    alone = distributions(output.extras["opinions"])[0]
    torch.testing.assert_close(output.logits, predictive(alone))
    terms = method.losses(output, data, tiny.clock())
    assert terms["unimodal/depth"].value.item() == 0
    torch.testing.assert_close(terms["task"].value, terms["unimodal/rgb"].value)
    sum(term.value for term in terms.values()).backward()
    depth = [*method.trunk.encoders["depth"].parameters(), *method.head.heads["depth"].parameters()]
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in depth)


def test_row_without_any_modality__is_the_training_mean_and_finite():
    method, data = ready(2), measured(2)
    output = method(data.inputs, torch.zeros(8, 2).bool())
    student_t = split_student_t(output.logits, 1)
    assert not student_t.location.any()
    assert not student_t.log_scale.any()
    torch.testing.assert_close(student_t.log_df.exp(), torch.full((8, 1), 4.0))
    sum(term.value for term in method.losses(output, data, tiny.clock()).values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


def test_disagreement__raises_both_uncertainties():
    def uncertainty(distance):
        outputs = torch.stack([raw(-distance, *FIRST[1:]), raw(distance, *FIRST[1:])])[None]
        extras = decided(ready(2), outputs, torch.ones(1, 2).bool()).extras
        return extras["aleatoric"].item(), extras["epistemic"].item()

    near, far = uncertainty(0.0), uncertainty(3.0)
    # The scale rises by count * distance ** 2 = 18, the shape is 4.5, the count 4.
    assert far[0] - near[0] == pytest.approx(18 / 3.5, rel=1e-5)
    assert far[1] - near[1] == pytest.approx(18 / 3.5 / 4, rel=1e-5)


def test_mixed_precision__keeps_distributions_and_terms_in_float32():
    method, data = ready(3), measured(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = method(data.inputs, tiny.mixed_presence(3))
        terms = method.losses(output, data, tiny.clock())
    assert output.extras["opinions"].dtype == torch.bfloat16
    assert output.logits.dtype == torch.float32
    assert all(term.value.dtype == torch.float32 and term.value.isfinite() for term in terms.values())
