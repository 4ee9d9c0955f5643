"""MMPareto: the solver and steps of the released code, worked examples, invariants."""

import pytest
import tiny_models as tiny
import torch
from pydantic import ValidationError
from released_pairs import Pair, golden
from robustmm_plugins.balancing.mmpareto import MMPareto, MMParetoOptions, combined, joint_weight
from robustmm_plugins.balancing.none import NoBalancing

from robustmm import Balancer, RunFailed
from robustmm.testing.runs import Run, mixed, showing
from robustmm.testing.tiny import Setting

CASES = golden("mmpareto")
SOLVER = {name: case for name, case in CASES["solver"].items() if name != "origin"}
THREE = Setting(3)
SCOPES = ["tensor", "encoder"]


def vectors(*rows):
    return [torch.tensor(row, dtype=torch.float64) for row in rows]


def weight_of(joint, own):
    return joint_weight(joint.dot(joint), own.dot(own), joint.dot(own)).item()


def flat(vector):
    return torch.cat([torch.tensor(part, dtype=torch.float64).flatten() for part in vector])


# --- the weight ---


@pytest.mark.parametrize("name", ["conflict", "strong_conflict", "opposite", "two_tensors"])
def test_weight__in_conflict_is_the_released_solver_s(name):
    joint, own = map(flat, SOLVER[name]["vectors"])
    assert joint.dot(own) <= 0
    assert weight_of(joint, own) == pytest.approx(SOLVER[name]["weights"][0], abs=1e-12)
    assert weight_of(own, joint) == pytest.approx(SOLVER[name]["weights"][1], abs=1e-12)


@pytest.mark.parametrize("name", ["first_is_short", "second_is_short", "aligned"])
def test_weight__of_gradients_that_agree_is_one_half(name):
    """The release asks its solver only where they do not."""
    joint, own = map(flat, SOLVER[name]["vectors"])
    assert joint.dot(own) > 0
    assert weight_of(joint, own) == 0.5


def test_weight__without_one_of_the_gradients():
    something, nothing = vectors([3.0, -1.0], [0.0, 0.0])
    assert weight_of(something, nothing) == 0.5
    assert weight_of(nothing, nothing) == 0.5
    assert weight_of(nothing, something) == 0.999


# --- the combination ---


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(
    ("joint", "own", "expected"),
    [
        ([1.0, 0.0], [-0.5, 1.0], [0.930261, 1.395391]),
        ([1.0, 0.0], [-2.0, 0.5], [1.5 * 3.400368 * 0.054054, 1.5 * 3.400368 * 0.324324]),
        ([1.0, 0.0], [0.5, 1.0], [2.25, 1.5]),
        ([1.0, -2.0], [-1.0, 2.0], [0.0, 0.0]),
        ([1.0, -2.0], [0.0, 0.0], [1.0, -2.0]),
        ([0.0, 0.0], [1.0, -2.0], [1.5, -3.0]),
        ([0.0, 0.0], [0.0, 0.0], [0.0, 0.0]),
    ],
)
def test_combined__matches_worked_examples(joint, own, expected, scope):
    joint, own, expected = vectors(joint, own, expected)
    (found,) = combined([joint], [own], gamma=1.5, scope=scope)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def conflicting():
    """Gradients of two parameters that conflict as a whole."""
    generator = torch.Generator().manual_seed(0)
    joint = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((3, 4), (5,))]
    own = [0.3 * torch.randn(g.shape, generator=generator, dtype=torch.float64) - 0.5 * g for g in joint]
    return joint, own


def joined(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors])


def test_combined__in_conflict_hurts_neither_objective():
    joint, own = conflicting()
    one, other = joined(joint), joined(own)
    assert one.dot(other) < 0
    whole = joined(combined(joint, own, gamma=1.5, scope="encoder"))
    torch.testing.assert_close(whole.dot(one), whole.dot(other))
    assert whole.dot(one) > 0
    torch.testing.assert_close(whole.norm(), 1.5 * (one + other).norm())


def test_combined__restores_the_magnitude_of_each_tensor_or_of_the_encoder():
    joint, own = conflicting()
    weight = weight_of(joined(joint), joined(own))
    for found, first, second in zip(combined(joint, own, gamma=1.5, scope="tensor"), joint, own, strict=True):
        h = 2 * weight * first + 2 * (1 - weight) * second
        torch.testing.assert_close(found, 1.5 * h * max((first + second).norm() / h.norm(), torch.tensor(1.0)))


@pytest.mark.parametrize("scope", SCOPES)
def test_combined__scales_with_both_gradients(scope):
    joint, own = conflicting()
    once = combined(joint, own, gamma=1.5, scope=scope)
    scaled = combined([100 * g for g in joint], [100 * g for g in own], gamma=1.5, scope=scope)
    for small, large in zip(once, scaled, strict=True):
        torch.testing.assert_close(large, 100 * small)


@pytest.mark.parametrize("scope", SCOPES)
def test_combined__of_gamma_1_and_agreement_is_the_sum_bit_for_bit(scope):
    joint, _ = conflicting()
    own = [0.7 * g + 0.01 for g in joint]
    found = combined(joint, own, gamma=1.0, scope=scope)
    assert all(torch.equal(f, one + other) for f, one, other in zip(found, joint, own, strict=True))


@pytest.mark.parametrize(("scope", "first"), [("tensor", 3.0), ("encoder", 3.0 * 2**0.5)])
def test_combined__of_a_tensor_that_cancels_is_zero(scope, first):
    """Weights 3/4 and 1/4, h = (2, 0) for a sum of (2, -2). The release divides by the norm of the second, 0: NaN."""
    found = combined(vectors([1.0], [1.0]), vectors([1.0], [-3.0]), gamma=1.5, scope=scope)
    assert [tensor.item() for tensor in found] == pytest.approx([first, 0.0])


def test_combined__decides_on_averages_over_processes():
    """Cosines -0.98 and 0.51 of two processes, 0.99 of their averages: the sum of these, times gamma."""
    joint, own = vectors([0.5, 0.5], [0.25, 0.35])
    torch.testing.assert_close(combined([joint], [own], gamma=1.5, scope="tensor")[0], 1.5 * (joint + own))


# --- the step, against the released code ---


def pair_of(name):
    case = dict(CASES[name])
    places = {"head.": "head.linear.", "head_audio.": "unimodal_heads.audio.linear."}
    places["head_video."] = "unimodal_heads.visual.linear."
    places |= {f"{m}_net.": f"trunk.encoders.{m}.stages.0." for m in ("audio", "visual")}
    used = {
        key: key.replace(place, own)
        for key in case["parameters"]
        for place, own in places.items()
        if key.startswith(place)
    }
    assert len(used) == len(case["parameters"])
    return case, Pair(case, "side_by_side", used, heads=True)


@pytest.mark.parametrize("name", ["aligned", "audio_conflicts", "both_conflict"])
def test_step__matches_the_released_code(name):
    case, pair = pair_of(name)
    terms = pair.step(MMPareto(gamma=case["gamma"]))
    pair.compare(case["final_gradient"])
    assert list(terms) == ["task", "own_head/audio", "own_head/visual"]
    expected = [case["losses"][loss] for loss in ("joint", "audio", "visual")]
    assert [term.value.item() for term in terms.values()] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["aligned", "audio_conflicts", "both_conflict"])
def test_step__of_whole_encoders_differs_from_the_released_one_in_conflict_alone(name):
    case, tensors = pair_of(name)
    _, whole = pair_of(name)
    tensors.step(MMPareto())
    whole.step(MMPareto(scope="encoder"))
    own, other = dict(tensors.method.named_parameters()), dict(whole.method.named_parameters())
    for key, place in tensors.used.items():
        encoder = key.split("_net")[0]
        conflict = case["cosine"].get(encoder, 1.0) < 0
        equal = torch.allclose(own[place].grad, other[place].grad, rtol=1e-9)
        assert equal != conflict, key


# --- in runs ---


def run(balancer, setting=THREE, *, presence=None, heads=True, **options):
    ours = Run(setting, balancer, heads=heads, **options)
    ours.train(mixed(setting) if presence is None else presence, stop=4)
    return ours.weights(heads=False)


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


class Sum(Balancer):
    """The uniform baseline: joint and unimodal losses through their heads, in one pass."""

    def weigh(self, terms, view):
        return MMPareto().weigh(terms, view)


def one_step(balancer, presence, *, dense=False):
    """Gradients of a step by parameter name, and the run."""
    setting = Setting(3) if not dense else Setting(2, dense=True)
    ours = Run(setting, balancer, heads=True)
    ours.train(lambda step: presence, stop=1)
    return {name: parameter.grad for name, parameter in ours.method.named_parameters()}, ours


@pytest.mark.parametrize("dense", [False, True])
def test_heads_and_fusion__get_the_plain_gradients_of_their_own_losses(dense):
    presence = mixed(Setting(2, dense=True) if dense else THREE)(0)
    found, _ = one_step(MMPareto(), presence, dense=dense)
    summed, _ = one_step(Sum(), presence, dense=dense)
    compared = [name for name in found if ".encoders." not in name]
    assert any(name.startswith("unimodal_heads") for name in compared)
    for name in compared:
        torch.testing.assert_close(found[name], summed[name], msg=name)
    assert not all(torch.allclose(found[name], summed[name]) for name in found)


def test_encoder__that_nothing_shows_has_no_gradient():
    found, _ = one_step(MMPareto(), showing(THREE, [0, 1])(0))
    assert all(value is None for name, value in found.items() if ".m2." in name)
    assert all(value is not None for name, value in found.items() if "encoders.m1." in name)


def test_encoders__are_passed_twice():
    ours = Run(THREE, MMPareto(), heads=True)
    passes = []
    weight = ours.method.trunk.encoders["m0"].stages[0][0].weight
    weight.register_hook(lambda gradient: passes.append(gradient))
    ours.train(mixed(THREE), stop=1)
    assert len(passes) == 2


def test_encoder__without_a_unimodal_gradient_keeps_the_joint_one():
    view = tiny.step_view(tiny.Method(tiny.blueprint(2)), tiny.batch(2), torch.ones(8, 2).bool())
    owned = view.groups["rgb"]
    for parameter in owned:
        view.apart[parameter] = parameter.grad.clone()
    before = [parameter.grad.clone() for parameter in owned]
    others = [parameter.grad.clone() for parameter in view.groups["depth"]]
    MMPareto().modulate_gradients(view)
    for parameter, old in zip(owned, before, strict=True):
        torch.testing.assert_close(parameter.grad, 1.5 * 2 * old)
    for parameter, old in zip(view.groups["depth"], others, strict=True):
        assert torch.equal(parameter.grad, old)


def test_parameter__that_one_loss_alone_reaches_counts_as_zero_in_the_other():
    view = tiny.step_view(tiny.Method(tiny.blueprint(2)), tiny.batch(2), torch.ones(8, 2).bool())
    first, second, *_ = view.groups["rgb"]
    view.apart[first] = first.grad.clone()
    before, first.grad = first.grad.clone(), None
    second_before = second.grad.clone()
    MMPareto().modulate_gradients(view)
    assert first.grad is not None
    torch.testing.assert_close(first.grad / first.grad.norm(), before / before.norm())
    assert torch.isfinite(second.grad).all()
    torch.testing.assert_close(second.grad / second.grad.norm(), second_before / second_before.norm())


def test_modulation__never_waits_for_the_device(monkeypatch):
    view = tiny.step_view(tiny.Method(tiny.blueprint(2)), tiny.batch(2), torch.ones(8, 2).bool())
    view.apart.update({parameter: -parameter.grad for parameter in view.groups["rgb"]})

    def wait(*_):
        raise AssertionError("a value is read")

    with monkeypatch.context() as patched:
        for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy"):
            patched.setattr(torch.Tensor, name, wait)
        MMPareto().modulate_gradients(view)
    assert all(parameter.grad.isfinite().all() for parameter in view.groups["rgb"])


@pytest.mark.parametrize("setting", [THREE, Setting(2, dense=True)], ids=str)
def test_mmpareto__over_several_batches_equals_one_batch(setting):
    """A dense loss is a mean over the pixels of a batch, so equally many are valid in every batch here."""
    whole, parts = (run(MMPareto(), setting, norm=False, accumulate=count) for count in (1, 4))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_mmpareto__one_modality_per_sample_is_left_alone():
    for mask in (torch.eye(2).bool().repeat(8, 1), showing(Setting(2), [0])(0)):
        plain, ours = (run(b, Setting(2), presence=lambda step, m=mask: m) for b in (NoBalancing(), MMPareto()))
        assert same(plain, ours)


def test_mmpareto__under_mixed_precision_is_finite_with_float32_terms():
    torch.manual_seed(0)
    parts = tiny.blueprint(2)
    method, data, presence = tiny.Method(parts), tiny.batch(2), tiny.mixed_presence(2)
    method.unimodal_heads = parts.make_heads(method.trunk)
    view, balancer = tiny.step_view(method, data, presence), MMPareto()
    method.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        view.output = method(data.inputs, presence)
        terms = balancer.weigh(method.losses(view.output, data, tiny.clock()), view)
    assert [term.value.dtype for term in terms.values()] == [torch.float32] * 3
    balancer.backward(terms, view)
    assert view.apart
    balancer.modulate_gradients(view)
    assert all(p.grad.isfinite().all() for p in method.parameters())


def test_mmpareto__without_heads_says_what_is_missing():
    view = tiny.step_view(tiny.Method(tiny.blueprint(2)), tiny.batch(2), torch.ones(8, 2).bool())
    with pytest.raises(RunFailed, match="must require 'unimodal_heads'"):
        MMPareto().weigh({}, view)


def test_options__refuse_what_makes_no_sense():
    for wrong in ({"gamma": 0}, {"scope": "layer"}, {"alpha": 1}):
        with pytest.raises(ValidationError):
            MMParetoOptions(**wrong)
