"""DGL: gradients of the released code, a worked example, which loss reaches what."""

from functools import partial

import pytest
import tiny_models as tiny
import torch
from pydantic import ValidationError
from released_pairs import Pair, golden, renamed
from robustmm_plugins.balancing.dgl import DGL, DGLOptions
from robustmm_plugins.balancing.none import NoBalancing
from robustmm_plugins.methods.late_fusion import LateFusion

from robustmm import Balancer, LossTerm
from robustmm.testing.runs import Run, mixed, showing
from robustmm.testing.tiny import Setting

CASES = golden("dgl")
THREE = Setting(3)
FIRST = "trunk.encoders.rgb.stages.0.0.weight"


# --- against the released code ---


def pair_of(name, form):
    case = CASES[name]
    return case, Pair(case, form, renamed(case))


@pytest.mark.parametrize("form", ["concat", "sum", "bilinear", "gated"])
def test_step__matches_the_released_code(form):
    """Of gated fusion the projections are not compared: the release leaves them without a gradient."""
    case, pair = pair_of(form, form)
    terms = pair.step(DGL(alpha=case["alpha"]))
    pair.compare(case["gradient"])
    losses = case["losses"]
    expected = [losses["fused"], *(case["alpha"] * losses[m] for m in ("audio", "visual"))]
    assert [term.value.item() for term in terms.values()] == pytest.approx(expected, rel=1e-9)


def test_gated__projections_get_the_gradient_of_the_joint_loss():
    case, pair = pair_of("gated", "gated")
    pair.step(DGL(alpha=case["alpha"]))
    _, joint = pair_of("gated", "gated")
    joint.step(NoBalancing())
    own, expected = dict(pair.method.named_parameters()), dict(joint.method.named_parameters())
    projections = [name for key, name in pair.used.items() if "fc_x" in key or "fc_y" in key]
    assert len(projections) == 4
    for name in projections:
        assert own[name].grad.abs().sum() > 0
        torch.testing.assert_close(own[name].grad, expected[name].grad)


def test_step__is_clipped_like_the_released_one():
    case = CASES["concat_clipped"] | {"parameters": CASES["concat"]["parameters"]}
    pair = Pair(case, "concat", renamed(case))
    pair.step(DGL(alpha=case["alpha"]), clip_norm=case["max_norm"])
    pair.compare(case["gradient"])


def test_step__matches_worked_example():
    """Encoders are the identity, so their bias gets the gradient that reaches the encoder's output."""
    identity, off = [[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]
    parameters = {
        f"{m}_net.fc.{kind}": v for m in ("audio", "visual") for kind, v in (("weight", identity), ("bias", off))
    }
    parameters["fusion_module.fc_out.weight"] = [[1.0, 0.0, 0.5, 0.0], [0.0, 1.0, 0.0, 0.5]]
    parameters["fusion_module.fc_out.bias"] = off
    case = {"parameters": parameters, "audio": [[1.0, 0.0]], "visual": [[2.0, 0.0]], "label": [0]}
    pair = Pair(case, "concat", renamed(case))
    pair.step(DGL())
    own = dict(pair.method.named_parameters())
    found = {key: own[name].grad for key, name in pair.used.items()}
    for key, expected in {
        "audio_net.fc.bias": [-1.075766, 1.075766],
        "visual_net.fc.bias": [-0.537883, 0.537883],
        "fusion_module.fc_out.weight": [[-0.119203, 0, -0.238406, 0], [0.119203, 0, 0.238406, 0]],
        "fusion_module.fc_out.bias": [-0.119203, 0.119203],
    }.items():
        torch.testing.assert_close(found[key], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)


# --- which loss reaches what ---


class WithAuxiliary(tiny.Method):
    """An auxiliary term on the features and on the head."""

    def losses(self, output, batch, clock):
        size = sum(levels[-1].square().mean() for levels in output.features.values())
        return super().losses(output, batch, clock) | {"own": LossTerm(size + output.logits.mean(), "auxiliary")}


def gradients(balancer, *, presence=None, method=WithAuxiliary, change=lambda data: None, dense=False):
    """Gradients of one batch of three modalities, by parameter."""
    torch.manual_seed(0)
    model, data = method(tiny.blueprint(3, dense=dense)), tiny.batch(3, dense=dense)
    change(data)
    presence = tiny.mixed_presence(3) if presence is None else presence
    view = tiny.step_view(model, data, presence)
    model.zero_grad()
    view.output = model(data.inputs, presence, size=tuple(data.target.shape[1:]))
    terms = balancer.weigh(model.losses(view.output, data, view.clock), view)
    balancer.backward(terms, view)
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def split(found):
    encoders = {name: value for name, value in found.items() if ".encoders." in name}
    return encoders, {name: value for name, value in found.items() if name not in encoders}


class AuxiliaryAlone(Balancer):
    """Leaves the task out."""

    def weigh(self, terms, view):
        return {name: term for name, term in terms.items() if term.role != "task"}


@pytest.mark.parametrize("dense", [False, True])
def test_shared_parts__get_the_plain_gradient_whatever_alpha_is(dense):
    _, plain = split(gradients(Balancer(), dense=dense))
    for alpha in (0.0, 4.0):
        _, shared = split(gradients(DGL(alpha=alpha), dense=dense))
        for name, value in plain.items():
            torch.testing.assert_close(shared[name], value)


@pytest.mark.parametrize("dense", [False, True])
def test_encoders__of_alpha_0_get_auxiliary_gradients_alone(dense):
    """And none at all where there is no auxiliary term."""
    expected, _ = split(gradients(AuxiliaryAlone(), dense=dense))
    found, _ = split(gradients(DGL(alpha=0.0), dense=dense))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    encoders, _ = split(gradients(DGL(alpha=0.0), method=tiny.Method, dense=dense))
    assert all(value is None for value in encoders.values())


def test_encoders__do_not_depend_on_other_modalities():
    def other_depth(data):
        data.inputs["depth"].neg_()

    one, two = (gradients(DGL(), method=tiny.Method, change=c)[FIRST] for c in (lambda data: None, other_depth))
    torch.testing.assert_close(one, two)
    joint = [gradients(Balancer(), method=tiny.Method, change=c)[FIRST] for c in (lambda data: None, other_depth)]
    assert not torch.allclose(joint[0], joint[1])


def test_dgl__with_separate_heads_trains_encoders_by_their_own_opinion():
    """Fusion of decisions: alone, a modality's opinion is the whole prediction."""
    options = {"method": partial(LateFusion, unimodal_weight=0.0), "presence": torch.ones(8, 3).bool()}
    found, shared = split(gradients(DGL(alpha=1.0), **options))

    class Opinions(Balancer):
        def weigh(self, terms, view):
            own = view.method.unimodal_losses(view.output, view.batch)
            return {"own": LossTerm(torch.stack(own).sum(), "task")}

    expected, _ = split(gradients(Opinions(), **options))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    assert all(value is not None for value in shared.values())


# --- in runs ---


def run(balancer, setting=THREE, *, presence=None, **options):
    ours = Run(setting, balancer, **options)
    ours.train(mixed(setting) if presence is None else presence, stop=4)
    return ours.weights()


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("setting", [THREE, Setting(2, dense=True)], ids=str)
def test_dgl__over_several_batches_equals_one_batch(setting):
    """A dense loss is a mean over the pixels of a batch, so equally many are valid in every batch here."""
    whole, parts = (run(DGL(), setting, norm=False, accumulate=count) for count in (1, 4))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_dgl__one_modality_per_sample_is_left_alone():
    for mask in (torch.eye(2).bool().repeat(8, 1), showing(Setting(2), [0])(0)):
        plain, ours = (run(b, Setting(2), presence=lambda step, m=mask: m) for b in (NoBalancing(), DGL()))
        assert same(plain, ours)


def test_dgl__leaves_statistics_of_batchnorm_as_plain_training_does():
    setting = Setting(2, dense=True)
    plain, ours = Run(setting, NoBalancing()), Run(setting, DGL())
    for one in (plain, ours):
        one.train(mixed(setting), stop=1)
    buffers = dict(ours.method.named_buffers())
    assert any("running" in name for name in buffers)
    assert all(torch.equal(value, buffers[name]) for name, value in plain.method.named_buffers())


def test_dgl__under_mixed_precision_is_finite_with_float32_terms():
    torch.manual_seed(0)
    method, data, presence = tiny.Method(tiny.blueprint(2)), tiny.batch(2), tiny.mixed_presence(2)
    view = tiny.step_view(method, data, presence)
    method.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        view.output = method(data.inputs, presence)
        terms = DGL().weigh(method.losses(view.output, data, tiny.clock()), view)
    assert [term.value.dtype for term in terms.values()] == [torch.float32] * 3
    DGL().backward(terms, view)
    assert all(p.grad.isfinite().all() for p in method.parameters())


def test_options__refuse_what_makes_no_sense():
    for wrong in ({"alpha": -1}, {"beta": 1}):
        with pytest.raises(ValidationError):
            DGLOptions(**wrong)
