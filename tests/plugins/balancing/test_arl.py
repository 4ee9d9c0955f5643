"""ARL: coefficients and gradients of the released code, worked examples, invariants."""

import dataclasses

import pytest
import tiny_models as tiny
import torch
from pydantic import ValidationError
from released_pairs import Pair, golden, renamed
from robustmm_plugins.balancing.arl import ARL, ARLOptions, asymmetric_weights, readout_sums
from robustmm_plugins.balancing.none import NoBalancing

from robustmm import ClassificationTask, SegmentationTask
from robustmm.testing.runs import Run, mixed, showing
from robustmm.testing.tiny import Setting

CASES = golden("arl")
COEFFICIENTS = {name: case for name, case in CASES["coefficients"].items() if name != "origin"}
NAN = float("nan")
THREE = Setting(3)


def weights_of(logits, temperature, presence=None):
    rows = len(next(iter(logits.values())))
    presence = torch.ones(rows, len(logits)).bool() if presence is None else presence
    size, entropy, count = readout_sums(tiny.TinyTask(), logits, torch.zeros(rows).long(), presence)
    return asymmetric_weights(size / count, entropy / count, temperature)


# --- the weights ---


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_weights__match_the_released_code(name):
    case = COEFFICIENTS[name]
    logits = {m: torch.tensor(case[f"{m}_logits"], dtype=torch.float64) for m in ("audio", "visual")}
    found = weights_of(logits, case["temperature"])
    torch.testing.assert_close(found, torch.tensor(case["weights"], dtype=torch.float64), rtol=0, atol=1e-9)
    swapped = weights_of(dict(reversed(logits.items())), case["temperature"])
    torch.testing.assert_close(swapped, found.flip(0))


def test_weights__of_three_match_worked_example():
    """d = (.5, .3, .2) and q = (.4, .4, .2), so h proportional to (1, 1, 2) and above the floor 0.2."""
    found = asymmetric_weights(torch.tensor([5.0, 3.0, 2.0]), torch.tensor([1.0, 1.0, 2.0]), 8.0)
    torch.testing.assert_close(found, torch.tensor([0.211983, 0.471776, 0.316241]), rtol=0, atol=1e-6)


def test_weights__floor_of_entropy_shares_is_0_6_over_the_number_of_modalities():
    """h = (0.1, 0.45, 0.45) becomes (0.2, 0.45, 0.45), q = (5, 2.22, 2.22) / 9.44."""
    found = asymmetric_weights(torch.full((3,), 2.0), torch.tensor([0.1, 0.45, 0.45]), 8.0)
    q = torch.tensor([0.529412, 0.235294, 0.235294])
    torch.testing.assert_close(found, (4 * (q - 1 / 3)).softmax(dim=0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize(("dependence", "entropy"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (2.0, 0.5)])
def test_weights__are_uniform_for_equal_modalities_and_where_shares_are_0_by_0(count, dependence, entropy):
    found = asymmetric_weights(torch.full((count,), dependence), torch.full((count,), entropy), 8.0)
    torch.testing.assert_close(found, torch.full((count,), 1 / count))


def test_weights__of_zero_logits_are_uniform():
    found = weights_of({"a": torch.zeros(2, 3), "v": torch.zeros(2, 3)}, 8.0)
    assert found.tolist() == [0.5, 0.5]
    saturated = torch.tensor([[900.0, -900.0]])
    assert weights_of({"a": saturated, "v": saturated}, 8.0).tolist() == [0.5, 0.5]


def test_weights__of_absent_modalities_are_0_and_leave_the_others_alone():
    pair = asymmetric_weights(torch.tensor([3.0, 1.0]), torch.tensor([0.4, 0.6]), 8.0)
    found = asymmetric_weights(torch.tensor([3.0, NAN, 1.0]), torch.tensor([0.4, NAN, 0.6]), 8.0)
    torch.testing.assert_close(found, torch.stack([pair[0], torch.tensor(0.0), pair[1]]))
    assert asymmetric_weights(torch.tensor([3.0, NAN]), torch.tensor([0.4, NAN]), 8.0).tolist() == [0.0, 0.0]
    assert asymmetric_weights(torch.full((2,), NAN), torch.full((2,), NAN), 8.0).tolist() == [0.0, 0.0]


def test_temperature_0__gives_uniform_weights():
    assert asymmetric_weights(torch.tensor([3.0, 1.0]), torch.tensor([0.4, 0.6]), 0.0).tolist() == [0.5, 0.5]


def test_sums__count_rows_that_show_a_modality():
    logits = {"a": torch.tensor([[3.0, -1.0], [9.0, 9.0]]), "v": torch.zeros(2, 2)}
    presence = torch.tensor([[True, True], [False, True]])
    size, entropy, count = readout_sums(ClassificationTask(["x", "y"]), logits, torch.zeros(2).long(), presence)
    assert size.tolist() == [4.0, 0.0]
    assert count.tolist() == [1.0, 2.0]
    expected = torch.distributions.Categorical(logits=logits["a"][0]).entropy()
    torch.testing.assert_close(entropy, torch.stack([expected, 2 * torch.tensor(2.0).log()]))


def test_sums__count_valid_pixels_of_label_maps():
    maps = torch.tensor([[[[2.0, 5.0]], [[-1.0, 7.0]]]])  # (1, 2, 1, 2)
    void = torch.tensor([[[0, 255]]])
    size, _, count = readout_sums(SegmentationTask(["x", "y"]), {"a": maps}, void, torch.ones(1, 1).bool())
    assert (size.item(), count.item()) == (3.0, 1.0)


def test_sums__of_half_precision_logits_are_float32():
    sums = readout_sums(
        tiny.TinyTask(), {"a": torch.ones(2, 3, dtype=torch.bfloat16)}, torch.zeros(2).long(), torch.ones(2, 1).bool()
    )
    assert sums.dtype == torch.float32


# --- the step, against the released code ---


def pair_of(name):
    case = CASES[name]
    return case, Pair(case, case["fusion"], renamed(case))


@pytest.mark.parametrize("name", ["concat", "sum", "share", "gated"])
def test_step__matches_the_released_code(name):
    case, pair = pair_of(name)
    options = {"gamma": case["gamma"], "temperature": case["temperature"], "first_epoch": case["start"] + 1}
    terms = pair.step(ARL(**options), epoch=case["epoch"])
    pair.compare(case["gradient_scaled"])
    losses = case["losses"]
    found = [term.value.item() for term in terms.values()]
    assert list(terms) == ["task", "alone/audio", "alone/visual"]
    expected = [losses["fused"], *(case["gamma"] * losses[m] for m in ("audio", "visual"))]
    assert found == pytest.approx(expected, rel=1e-9)
    _, released = pair_of(name)
    released.step(ARL(**options, apply_weights=False), epoch=case["epoch"])
    released.compare(case["gradient_unscaled"])


def test_warm_up__matches_the_released_code():
    case, pair = pair_of("concat_warm_up")
    pair.step(ARL(gamma=case["gamma"], temperature=case["temperature"]), epoch=case["epoch"])
    pair.compare(case["gradient"])


# --- in runs ---


def run(balancer, setting=THREE, *, presence=None, **options):
    ours = Run(setting, balancer, **options)
    ours.train(mixed(setting) if presence is None else presence, stop=4)
    return ours.weights()


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_arl__without_losses_and_weights_trains_like_no_balancing_bit_for_bit():
    expected = run(NoBalancing())
    assert same(expected, run(ARL(gamma=0, first_epoch=0, apply_weights=False)))
    assert not same(expected, run(ARL(gamma=0, first_epoch=0)))
    assert not same(expected, run(ARL(gamma=1, first_epoch=0, apply_weights=False)))


def test_warm_up__has_losses_of_weight_1_and_no_factor():
    expected = run(ARL(gamma=1, first_epoch=0, apply_weights=False))
    assert same(expected, run(ARL(gamma=4, first_epoch=2)))  # steps of two epochs
    assert not same(expected, run(ARL(gamma=4, first_epoch=1)))


def test_arl__scales_encoders_alone_by_one_to_two():
    torch.manual_seed(0)
    balancer = ARL(first_epoch=0, gamma=0)
    view = tiny.step_view(tiny.Method(tiny.blueprint(3)), tiny.batch(3), tiny.shown(("rgb", "ir"), 3))
    before = {n: p.grad.clone() for n, p in view.method.named_parameters() if p.grad is not None}
    weights = dict(zip(view.modalities, balancer.weights(view), strict=True))
    assert weights["depth"] == 0
    assert sum(weights.values()).item() == pytest.approx(1)
    balancer.modulate_gradients(view)
    for name, parameter in view.method.named_parameters():
        if name in before:
            owner = next((m for m in view.modalities if f"encoders.{m}." in name), None)
            factor = 1 if owner is None else 1 + weights[owner]
            torch.testing.assert_close(parameter.grad, before[name] * factor, rtol=1e-6, atol=0)
    assert not any(weight.requires_grad for weight in weights.values())


def test_arl__uses_each_modality_s_own_logits_once_a_step(monkeypatch):
    calls = []
    original = tiny.StepView.subset_logits
    monkeypatch.setattr(
        tiny.StepView, "subset_logits", lambda view, masks: calls.append(len(masks)) or original(view, masks)
    )
    run(ARL(first_epoch=0), presence=mixed(Setting(3)))
    assert calls == [3] * 4


@pytest.mark.parametrize("setting", [Setting(3), Setting(2, dense=True)], ids=str)
def test_arl__over_several_batches_equals_one_batch(setting):
    """A dense loss is a mean over the pixels of a batch, so equally many are valid in every batch here."""
    whole = run(ARL(first_epoch=0), setting, norm=False)
    parts = run(ARL(first_epoch=0), setting, norm=False, accumulate=4)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_weights__come_from_sums_over_processes():
    torch.manual_seed(0)
    view = tiny.step_view(tiny.Method(tiny.blueprint(2)), tiny.batch(2), torch.ones(8, 2).bool())
    other = torch.tensor([[7.0, 1.0], [2.0, 3.0], [8.0, 8.0]])
    doubled = dataclasses.replace(view, all_reduce=lambda sums: sums + other)
    sums = readout_sums(view.method.task, view.alone_logits, view.batch.target, view.presence) + other
    expected = asymmetric_weights(sums[0] / sums[2], sums[1] / sums[2], 8.0)
    torch.testing.assert_close(ARL().weights(doubled), expected)


def test_arl__under_mixed_precision_is_finite_with_float32_terms():
    torch.manual_seed(0)
    method, data, presence = tiny.Method(tiny.blueprint(2)), tiny.batch(2), tiny.mixed_presence(2)
    view = tiny.step_view(method, data, presence)
    balancer = ARL(first_epoch=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        view.output = method(data.inputs, presence)
        terms = balancer.weigh({}, view)
        assert view.alone_logits["rgb"].dtype == torch.bfloat16
    assert [term.value.dtype for term in terms.values()] == [torch.float32] * 2
    balancer.backward(terms, view)
    view.release_graph()
    balancer.modulate_gradients(view)
    assert all(p.grad.isfinite().all() for p in method.parameters())


def test_arl__one_modality_per_sample_is_left_alone():
    presence = torch.eye(2).bool().repeat(8, 1)
    expected = run(NoBalancing(), Setting(2), presence=lambda step: presence)
    assert same(expected, run(ARL(first_epoch=0), Setting(2), presence=lambda step: presence))
    only = showing(Setting(2), [1])
    assert same(run(NoBalancing(), Setting(2), presence=only), run(ARL(first_epoch=0), Setting(2), presence=only))


def test_options__refuse_what_makes_no_sense():
    for wrong in ({"gamma": -1}, {"temperature": -0.1}, {"first_epoch": -1}, {"start": 5}):
        with pytest.raises(ValidationError):
            ARLOptions(**wrong)
