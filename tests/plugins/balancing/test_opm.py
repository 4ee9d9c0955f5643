"""OPM: the released code's numbers, the worked example, who loses what, and when."""

import dataclasses
import inspect

import pytest
import released
import tiny_models as tiny
import torch
from robustmm_plugins.balancing import opm
from robustmm_plugins.balancing.opm import OPM, OPMOptions, draw_drops, drop_probabilities, feature_scale

from robustmm.config.capabilities import check_capabilities
from robustmm.plugin_manager import get_plugins

GOLDEN = released.golden("opm")
MODALITIES = ("audio", "visual")
NAN = float("nan")


def active(**options):
    """A strategy that treats every batch from the first epoch on."""
    return OPM(**{"warmup_epochs": 0, "batch_probability": 1.0, "lead_weight": 0.5, **options})


def scored(score, **options):
    strategy = active(**options)
    strategy.score = torch.as_tensor(score)
    return strategy


def step_view(count, presence=None, *, epoch=0, number=0, size=8, seed=0):
    torch.manual_seed(0)
    presence = torch.ones(size, count, dtype=torch.bool) if presence is None else presence
    method = released.Method(tiny.blueprint(count))
    data = tiny.batch(count, size=size)
    return tiny.step_view(method, data, presence, at=tiny.clock(epoch, number), seed=seed)


def features_of(view, width=4, dtype=torch.float32):
    return {name: torch.ones(len(view.batch), width, dtype=dtype) for name in view.modalities}


# --- the formulas ---


@pytest.mark.parametrize("case", GOLDEN["probabilities"]["cases"])
def test_probability__is_that_of_the_released_code(case):
    found = drop_probabilities(released.exact(case["score"]), case["q_base"], case["lambda"])
    torch.testing.assert_close(found, released.exact(case["q"]), rtol=1e-10, atol=0)


def test_worked_example():
    """Scores 1.363103 and 0.831015 with q_base = lambda = 0.5 and equal widths."""
    probability = drop_probabilities(torch.tensor([1.363103, 0.831015]), 0.5, 0.5)
    torch.testing.assert_close(probability, torch.tensor([0.641274, 0.0]), atol=1e-6, rtol=0)
    scale = feature_scale(torch.ones(1, 2).bool(), torch.zeros(1).bool(), probability, [512, 512])
    assert scale.item() == pytest.approx(1.471967, abs=1e-5)


@pytest.mark.parametrize("score", [[NAN, NAN], [0.5, NAN], [0.4, 0.4], [0.3]])
def test_probability__is_zero_where_nobody_leads(score):
    assert drop_probabilities(torch.tensor(score), 0.5, 0.5).tolist() == [0.0] * len(score)


def test_probability__of_more_than_two_compares_with_the_mean_of_the_others():
    """Scores 0.9, 0.6, 0.3: ratios 2, 1 and below 1."""
    probability = drop_probabilities(torch.tensor([0.9, 0.6, 0.3]), 0.4, 0.5)
    assert probability.tolist() == pytest.approx([0.4 * (1 + 0.5 * torch.tanh(torch.tensor(1.0)).item()), 0, 0])


def test_drops__follow_the_numbers_drawn():
    shown = torch.ones(3, 2).bool()
    drop, alone = draw_drops(shown, torch.tensor([[0.1, 0.9], [0.6, 0.1], [0.5, 0.5]]), torch.tensor([0.5, 0.0]))
    assert drop.tolist() == [[True, False], [False, False], [False, False]]
    assert not alone.any()


def test_drops__leave_alone_what_would_lose_everything_or_shows_one_modality():
    shown = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    drop, alone = draw_drops(shown, torch.zeros(3, 3), torch.tensor([0.5, 0.5, 0.0]))
    assert drop.tolist() == [[False] * 3, [False] * 3, [True, True, False]]
    assert alone.tolist() == [True, True, False]


def test_scale__counts_what_a_sample_shows():
    shown = torch.tensor([[True, True, True], [True, True, False], [False, True, True]])
    scale = feature_scale(shown, torch.zeros(3).bool(), torch.tensor([0.5, 0.0, 0.0]), [2, 2, 4])
    torch.testing.assert_close(scale, torch.tensor([1 / (1 - 1 / 8), 1 / (1 - 1 / 4), 1.0]))


def test_scale__of_those_left_alone_is_one_even_for_a_certain_loss():
    scale = feature_scale(torch.ones(1, 2).bool(), torch.ones(1).bool(), torch.tensor([1.0, 1.0]), [3, 3])
    assert scale.tolist() == [1.0]


def test_released_drop_of_both__equals_ours_but_for_the_sample_that_loses_all(monkeypatch):
    """The release leaves that sample out of the batch; here it is as without the strategy."""
    case = GOLDEN["both_dropped"]
    mask = torch.tensor([case["mask"][name] for name in MODALITIES]).T.bool()
    kept = torch.tensor(case["kept"]).bool()
    monkeypatch.setattr(opm, "drop_probabilities", lambda *_: released.exact(case["q"]))
    monkeypatch.setattr(opm, "sample_uniforms", lambda *_: torch.where(mask, 0.999, 0.0))
    view = step_view(2, size=5)
    leaves, wide = {}, {}
    for name, own, width in zip(view.modalities, MODALITIES, case["widths"], strict=True):
        leaves[name] = released.exact(case["features"][own]).requires_grad_()
        wide[name] = torch.nn.functional.pad(leaves[name], (0, width - leaves[name].shape[1]))
    edited = scored([0.5, 0.4]).modulate_features(0, wide, view)
    for name, own in zip(view.modalities, MODALITIES, strict=True):
        found = edited[name][:, :3]
        torch.testing.assert_close(found[kept], released.exact(case["dropped_features"][own]))
        assert torch.equal(found[~kept], leaves[name][~kept])
        found[kept].backward(released.exact(case["output_gradient"][own]))
        torch.testing.assert_close(leaves[name].grad, released.exact(case["feature_gradient"][own]))


def leaked(layers, batch, case):
    """Gradients that the release lets through theta and the scores into the encoders.

    Its own backward function gives theta itself as the gradient of theta, which is that of theta ** 2 / 2.
    """
    head = [part.detach() for part in (layers["head"].weight, layers["head"].bias)]
    scores = []
    for name, block in zip(MODALITIES, head[0].split(3, dim=1), strict=True):
        own = layers[name](batch.inputs[name]) @ block.T + head[1] / 2
        scores.append(own.softmax(dim=1).gather(1, batch.target[:, None]).sum())
    theta = drop_probabilities(torch.stack(scores), case["q_base"], case["lambda"]).mean()
    assert theta.item() == pytest.approx(case["theta"])
    parameters = [getattr(layers[name], part) for name in MODALITIES for part in ("weight", "bias")]
    return torch.autograd.grad(theta**2 / 2, parameters)


@pytest.mark.parametrize("which", ["visual_leads", "audio_leads"])
def test_step__has_the_released_loss_and_gradients(which, monkeypatch):
    """With the score of the same batch and the mask that was drawn there; scores are constants here."""
    case = GOLDEN[which]
    weights = case["parameters"]
    names = {"audio": "encoder_1.fc", "visual": "encoder_2.fc", "head": "fusion_model.fxy"}
    given = {name: (weights[f"{own}.weight"], weights[f"{own}.bias"]) for name, own in names.items()}
    method = released.linear_method({name: given[name] for name in MODALITIES}, given["head"])
    mask = torch.tensor([case["mask"][name] for name in MODALITIES]).T.bool()
    monkeypatch.setattr(opm, "sample_uniforms", lambda *_: torch.where(mask, 0.999, 0.0))
    strategy = scored(released.exact(case["score"]), drop_probability=case["q_base"], lead_weight=case["lambda"])
    data = released.batch_of(case, MODALITIES)
    view, terms = released.step(method, strategy, data, epoch=6)
    torch.testing.assert_close(view.output.logits, released.exact(case["fused_logits"]))
    assert terms["task"].value.item() == pytest.approx(case["loss"], rel=1e-9)
    layers = released.layers_of(method)
    found = [getattr(layers[name], part).grad for name in names for part in ("weight", "bias")]
    leak = [*leaked(layers, data, case), 0.0, 0.0]
    expected = [case["gradient"][f"{own}.{part}"] for own in names.values() for part in ("weight", "bias")]
    for ours, extra, theirs in zip(found, leak, expected, strict=True):
        torch.testing.assert_close(ours + extra, released.exact(theirs))
    # The score that is kept for the next step is that of whole features, as the released one is.
    score = released.exact(case["score"]) / len(mask)
    torch.testing.assert_close(strategy.score, score, check_dtype=False, rtol=1e-5, atol=0)


# --- what is drawn ---


def test_numbers__are_those_of_splitmix64():
    """The first outputs for seed 1234567, as published with the generator, in their leading 24 bits."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    found = opm.sample_uniforms(torch.arange(2), 2, 1234567)
    assert found.flatten().tolist() == [(number >> 40) / 2**24 for number in published]


def test_numbers__are_uniform_and_uncorrelated():
    numbers = opm.sample_uniforms(torch.arange(20000), 2, 3)
    assert ((numbers >= 0) & (numbers < 1)).all()
    counts = torch.histc(numbers, bins=10, min=0, max=1) / numbers.numel()
    assert (counts - 0.1).abs().max() < 0.01
    assert torch.corrcoef(numbers.T)[0, 1].abs() < 0.03
    other = opm.sample_uniforms(torch.arange(20000), 2, 4)
    assert torch.corrcoef(torch.stack([numbers[:, 0], other[:, 0]]))[0, 1].abs() < 0.03


def test_numbers__belong_to_the_sample_not_to_its_place_in_the_batch():
    whole = opm.sample_uniforms(torch.arange(10), 3, 5)
    assert torch.equal(opm.sample_uniforms(torch.tensor([7, 2]), 3, 5), whole[[7, 2]])


def test_levels_of_a_step__lose_the_same_and_steps_differ():
    strategy = scored([0.8, 0.2])
    views = [step_view(2, number=number, size=64) for number in (3, 3, 4)]
    lost = [strategy.modulate_features(level, features_of(v), v)["rgb"][:, 0] == 0 for level, v in enumerate(views)]
    assert torch.equal(lost[0], lost[1])
    assert not torch.equal(lost[0], lost[2])
    assert 0 < lost[0].sum() < 64


def test_share_dropped__is_the_probability():
    """Scores 0.6 and 0.3: q = 0.5 (1 + 0.5 tanh 1) = 0.690399, theta half of it."""
    view = step_view(2, size=4000)
    edited = scored([0.6, 0.3]).modulate_features(0, features_of(view), view)
    dropped = edited["rgb"][:, 0] == 0
    assert dropped.float().mean().item() == pytest.approx(0.690399, abs=0.02)
    kept = torch.full((4000, 4), 1 / (1 - 0.690399 / 2))
    torch.testing.assert_close(edited["depth"], kept)
    torch.testing.assert_close(edited["rgb"][~dropped], kept[~dropped])


def test_batches__are_treated_with_their_probability():
    strategy = scored([0.6, 0.3], batch_probability=0.7)
    view = step_view(2)
    treated = 0
    for number in range(400):
        at = dataclasses.replace(view, clock=tiny.clock(0, number))
        features = features_of(at)
        treated += strategy.modulate_features(0, features, at) is not features
    assert treated / 400 == pytest.approx(0.7, abs=0.07)


def test_maps__are_dropped_whole():
    view = step_view(2, size=64)
    features = {name: torch.ones(64, 4, 2, 3) for name in view.modalities}
    edited = scored([0.6, 0.3]).modulate_features(0, features, view)["rgb"].flatten(1)
    assert ((edited == 0).all(dim=1) | (edited > 1).all(dim=1)).all()


def test_half_precision__keeps_its_type():
    view = step_view(2)
    edited = scored([0.6, 0.3]).modulate_features(0, features_of(view, dtype=torch.bfloat16), view)
    assert {own.dtype for own in edited.values()} == {torch.bfloat16}
    assert all(own.isfinite().all() for own in edited.values())


def test_autocast__gives_finite_values_and_float32_terms():
    method = released.Method(tiny.blueprint(2))
    strategy = scored([0.6, 0.3])
    with torch.autocast("cpu", torch.bfloat16):
        view, terms = released.step(method, strategy, tiny.batch(2))
    assert terms["task"].value.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in method.parameters())
    assert strategy.score.isfinite().all()
    assert view.output.logits.dtype == torch.bfloat16


def test_stand_ins_of_absent_modalities__stay_as_they_are():
    view = step_view(3, tiny.shown(("rgb", "depth"), 3))
    edited = scored([0.8, 0.1, NAN]).modulate_features(0, features_of(view), view)
    assert (edited["ir"] == 1).all()
    assert (edited["depth"] > 1).all()


# --- when nothing is to be done ---


@pytest.mark.parametrize(("epoch", "acts"), [(5, False), (6, True)])
def test_warmup__drops_nothing(epoch, acts):
    strategy = scored([0.6, 0.3], warmup_epochs=6)
    view = step_view(2, epoch=epoch)
    features = features_of(view)
    assert (strategy.modulate_features(0, features, view) is features) is not acts


@pytest.mark.parametrize(("epoch", "kept"), [(4, False), (5, True)])
def test_warmup__scores_from_its_last_epoch_on(epoch, kept):
    strategy = OPM(warmup_epochs=6)
    strategy.modulate_gradients(step_view(2, epoch=epoch))
    assert (strategy.score is not None) is kept


def test_first_step__has_no_score_and_drops_nothing():
    view = step_view(2)
    features = features_of(view)
    assert active().modulate_features(0, features, view) is features


@pytest.mark.parametrize("options", [{"batch_probability": 0.0}, {"drop_probability": 0.0}])
def test_probability_zero__trains_like_no_balancing_bit_for_bit(options):
    gradients = []
    for strategy in (scored([0.6, 0.3], **options), released.Balancer()):
        torch.manual_seed(0)
        method = released.Method(tiny.blueprint(2))
        released.step(method, strategy, tiny.batch(2))
        gradients.append([p.grad for p in method.parameters()])
    assert all(torch.equal(ours, plain) for ours, plain in zip(*gradients, strict=True))


def test_rows__present_keeps_the_last_score_of_an_absent_modality():
    strategy = scored([0.6, 0.3, 0.2], rows="present")
    strategy.modulate_gradients(step_view(3, tiny.shown(("rgb", "depth"), 3)))
    assert strategy.score[2].item() == pytest.approx(0.2)
    assert strategy.score[0].item() != pytest.approx(0.6)


def test_rows__complete_keeps_all_scores_where_no_row_shows_everything():
    strategy = scored([0.6, 0.3, 0.2])
    strategy.modulate_gradients(step_view(3, tiny.shown(("rgb", "depth"), 3)))
    assert strategy.score.tolist() == pytest.approx([0.6, 0.3, 0.2])


def test_state__is_the_score():
    assert active().state_dict() == {}
    fresh = active()
    fresh.load_state_dict(scored([0.6, 0.3]).state_dict())
    assert fresh.score.tolist() == pytest.approx([0.6, 0.3])
    fresh.load_state_dict({})
    assert fresh.score is None


# --- registration ---


def test_options__defaults_are_those_of_the_constructor():
    parameters = inspect.signature(OPM).parameters
    assert {name: parameters[name].default for name in OPMOptions.model_fields} == OPMOptions().model_dump()


def test_methods_without_fusion__are_refused():
    registry = get_plugins().registry
    chosen = [("balancer", registry.get("balancer", "opm")), ("method", registry.get("method", "late_fusion"))]
    found = [line for line in check_capabilities(chosen) if "opm" in line]
    assert any("does not work with method 'late_fusion', which provides 'no_fusion'" in line for line in found)
