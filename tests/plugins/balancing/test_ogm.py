"""OGM and OGM-GE: worked examples, invariants, noise."""

import dataclasses
import inspect

import pytest
import tiny_models as tiny
import torch
from pydantic import ValidationError
from robustmm_plugins.balancing import none, ogm, ogm_ge
from robustmm_plugins.balancing.none import NoBalancing
from robustmm_plugins.balancing.ogm import OGM, OGMOptions, leading_coefficient
from robustmm_plugins.balancing.ogm_ge import OGMGE, OGMGEOptions, enhancement_noise
from robustmm_plugins.methods.dmrnet import DMRNet
from robustmm_plugins.methods.modality_dropout import ModalityDropout

from robustmm.balancing.statistics import true_class_sums

STRATEGIES = [OGM, OGMGE]


def view_of(count, presence=None, *, method=ModalityDropout, epoch=0, dense=False, **build):
    torch.manual_seed(0)
    model = method(tiny.blueprint(count, dense=dense), **build)
    presence = tiny.mixed_presence(count) if presence is None else presence
    return tiny.step_view(model, tiny.batch(count, dense=dense), presence, at=tiny.clock(epoch, 3))


def gradients(view):
    return {
        name: None if parameter.grad is None else parameter.grad.clone()
        for name, parameter in view.method.named_parameters()
    }


def same(before, after):
    return all((own is None and after[name] is None) or torch.equal(own, after[name]) for name, own in before.items())


def fix_score(view, score):
    """Let the view report these scores."""
    object.__setattr__(view, "true_class_probability", lambda *, complete_rows=False: torch.tensor(score))
    return view


# --- the coefficient ---


def worked_scores():
    logits = {"a": torch.tensor([[2.0, 0, 0], [0, 1, 0]]), "v": torch.tensor([[0.5, 0, 0], [0, 0.2, 0]])}
    return true_class_sums(tiny.TinyTask(), logits, torch.tensor([0, 1]), torch.ones(2, 2).bool())


def test_scores__match_worked_example():
    sums, counts = worked_scores()
    torch.testing.assert_close(sums, torch.tensor([1.363103, 0.831015]), atol=1e-6, rtol=0)
    assert counts.tolist() == [2, 2]
    ratio = sums / sums.flip(0)
    torch.testing.assert_close(ratio, torch.tensor([1.640286, 0.609650]), atol=2e-6, rtol=0)


@pytest.mark.parametrize(("alpha", "expected"), [(0.1, 0.837427), (0.3, 0.544129), (0.8, 0.135162)])
def test_coefficient__matches_worked_example(alpha, expected):
    coefficient = leading_coefficient(worked_scores()[0], alpha)
    torch.testing.assert_close(coefficient, torch.tensor([expected, 1.0]), atol=1e-6, rtol=0)
    swapped = leading_coefficient(worked_scores()[0].flip(0), alpha)
    torch.testing.assert_close(swapped, torch.tensor([1.0, expected]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("alpha", "expected"), [(0.1, 0.900332), (0.3, 0.708687), (0.8, 0.335963)])
def test_coefficient__jumps_where_a_modality_begins_to_lead(alpha, expected):
    coefficient = leading_coefficient(torch.tensor([0.50001, 0.5]), alpha)
    torch.testing.assert_close(coefficient, torch.tensor([expected, 1.0]), atol=3e-5, rtol=0)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("score", [0.1, 1 / 3, 0.7, 0.0])
def test_coefficient__damps_nobody_for_equal_scores(count, score):
    assert leading_coefficient(torch.full((count,), score), 0.8).tolist() == [1.0] * count


def test_coefficient__compares_with_the_mean_of_the_others():
    """Scores 0.9, 0.6, 0.3: ratios 0.9 / 0.45 = 2, 0.6 / 0.6 = 1, 0.3 / 0.75 < 1."""
    coefficient = leading_coefficient(torch.tensor([0.9, 0.6, 0.3]), 0.5)
    torch.testing.assert_close(coefficient, torch.tensor([1 - torch.tanh(torch.tensor(1.0)), 1.0, 1.0]))


def test_coefficient__is_neutral_for_absent_modalities():
    nan = float("nan")
    coefficient = leading_coefficient(torch.tensor([0.6, nan, 0.3]), 0.8)
    assert coefficient.tolist() == [*leading_coefficient(torch.tensor([0.6, 0.3]), 0.8).tolist()[:1], 1.0, 1.0]
    assert leading_coefficient(torch.tensor([0.9, nan, nan]), 0.8).tolist() == [1.0] * 3
    assert leading_coefficient(torch.full((2,), nan), 0.8).tolist() == [1.0] * 2


def test_coefficient__of_a_total_lead_is_zero_and_finite():
    assert leading_coefficient(torch.tensor([0.9, 0.0]), 0.8).tolist() == [0.0, 1.0]


# --- modulation ---


def test_ogm__scales_the_leading_kernels_alone():
    view = fix_score(view_of(2), [0.6, 0.3])
    before = gradients(view)
    OGM(alpha=0.3).modulate_gradients(view)
    factor = 1 - torch.tanh(torch.tensor(0.3 * 2))
    for name, parameter in view.method.named_parameters():
        damped = ".rgb." in name and parameter.dim() >= 2
        torch.testing.assert_close(parameter.grad, before[name] * (factor if damped else 1), rtol=1e-6, atol=0)
        assert damped or torch.equal(parameter.grad, before[name])


def test_ogm__leaves_weakest_modality_unscaled():
    view = fix_score(view_of(3), [0.6, 0.1, 0.5])
    before = gradients(view)
    OGM().modulate_gradients(view)
    after = gradients(view)
    weakest = {name: value for name, value in before.items() if ".depth." in name}
    assert weakest
    assert same(weakest, after)
    assert not same(before, after)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_parameters__convolutions_are_four_dimensional_weights(strategy):
    vectors = fix_score(view_of(2), [0.6, 0.3])
    before = gradients(vectors)
    strategy(parameters="convolutions").modulate_gradients(vectors)
    assert same(before, gradients(vectors))
    images = [fix_score(view_of(2, dense=True), [0.6, 0.3]) for _ in range(2)]
    for view, parameters in zip(images, ["kernels", "convolutions"], strict=True):
        strategy(parameters=parameters).modulate_gradients(view)
    assert same(gradients(images[0]), gradients(images[1]))


def test_ogm__alpha_zero_leaves_gradients_bit_identical():
    view = view_of(3)
    before = gradients(view)
    OGM(alpha=0.0).modulate_gradients(view)
    assert same(before, gradients(view))


def test_ogm__alpha_zero_trains_like_no_balancing_bit_for_bit():
    states = []
    for balancer in (NoBalancing(), OGM(alpha=0.0)):
        torch.manual_seed(0)
        model = ModalityDropout(tiny.blueprint(2))
        states.append(tiny.train_steps(model, steps=10, after_backward=balancer.modulate_gradients))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("epoch", "acts"), [(1, False), (2, True), (4, True), (5, False)])
def test_epochs__both_ends_are_included(strategy, epoch, acts):
    view = fix_score(view_of(2, epoch=epoch), [0.6, 0.3])
    before = gradients(view)
    strategy(first_epoch=2, last_epoch=4).modulate_gradients(view)
    assert same(before, gradients(view)) is not acts


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("rows", ["complete", "present"])
def test_one_modality__changes_nothing(strategy, rows):
    view = view_of(1)
    before = gradients(view)
    strategy(rows=rows).modulate_gradients(view)
    assert same(before, gradients(view))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("rows", ["complete", "present"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_one_modality_present__changes_nothing(strategy, rows, count):
    view = view_of(count, tiny.shown(("rgb",), count))
    before = gradients(view)
    strategy(rows=rows).modulate_gradients(view)
    assert same(before, gradients(view))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("rows", ["complete", "present"])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_mixed_combinations__give_finite_gradients(strategy, rows, dense, count):
    view = view_of(count, tiny.mixed_presence(count), dense=dense)
    strategy(rows=rows).modulate_gradients(view)
    assert all(p.grad is None or p.grad.isfinite().all() for p in view.method.parameters())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_absent_modality__keeps_exactly_zero_gradients(strategy):
    presence = torch.tensor([[True, False, True]]).expand(8, -1)
    for dense in (False, True):  # skipped, and encoded but masked
        view = view_of(3, presence, dense=dense)
        strategy(rows="present").modulate_gradients(view)
        assert all(p.grad is None or not p.grad.any() for p in view.groups["depth"])


def test_rows__complete_compares_on_samples_that_show_everything():
    view = view_of(2)
    complete = view.presence.all(dim=1)
    logits = {name: own[complete] for name, own in view.unimodal.logits.items()}
    sums, counts = true_class_sums(view.method.task, logits, view.batch.target[complete], view.presence[complete])
    expected = leading_coefficient(sums / counts, 0.8)
    before = gradients(view)
    OGM().modulate_gradients(view)
    after = gradients(view)
    for name, factor in zip(view.modalities, expected, strict=True):
        key = f"trunk.encoders.{name}.stages.0.0.weight"
        torch.testing.assert_close(after[key], before[key] * factor)


def test_processes__compare_sums_not_ratios():
    """Scores (3, 1) here and (1, 3) elsewhere are even: nobody is damped."""
    view = view_of(2, torch.ones(8, 2).bool())
    own = true_class_sums(view.method.task, view.unimodal.logits, view.batch.target, view.presence)
    before = gradients(view)
    OGM().modulate_gradients(dataclasses.replace(view, all_reduce=lambda sums: sums + own.flip(1)))
    assert same(before, gradients(view))
    OGM().modulate_gradients(view)
    assert not same(before, gradients(view))


def test_probabilistic_method__is_scored_through_the_masked_readout():
    view = view_of(2, torch.ones(8, 2).bool(), method=DMRNet)
    before = gradients(view)
    OGM().modulate_gradients(view)
    assert view.unimodal.source == "masked"
    assert not same(before, gradients(view))


# --- noise ---


def test_noise__is_as_large_as_the_gradient_varies():
    """The unbiased deviation of [1, 2, 3, 4] is 1.290994."""
    gradient = torch.tensor([1.0, 2.0, 3.0, 4.0])
    draw = enhancement_noise([gradient], torch.tensor(1.0), torch.Generator().manual_seed(0))[0]
    unit = torch.randn(4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(draw, unit * 1.290994, atol=1e-6, rtol=1e-6)


def test_noise__of_each_tensor_has_its_own_deviation():
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(100, 100, generator=generator) * scale for scale in (0.5, 3.0)]
    noise = enhancement_noise(tensors, torch.tensor(1.0), generator)
    assert [own.std().item() for own in noise] == pytest.approx([0.5, 3.0], rel=0.03)
    assert abs(noise[1].mean().item()) < 5 * 3.0 / 100


def test_noise__of_a_zero_gradient_is_a_trace():
    noise = enhancement_noise([torch.zeros(3, 3)], torch.tensor(1.0), torch.Generator().manual_seed(0))[0]
    assert 0 < noise.abs().max() < 1e-7


def test_ogm_ge__adds_noise_of_the_undamped_gradient_to_every_encoder():
    view = fix_score(view_of(2), [0.6, 0.3])
    before = gradients(view)
    generator = view.generator("ogm_ge")
    OGMGE(alpha=0.3).modulate_gradients(view)
    after = gradients(view)
    for name, factor in (("rgb", 1 - torch.tanh(torch.tensor(0.6))), ("depth", torch.tensor(1.0))):
        keys = [f"trunk.encoders.{name}.stages.0.{layer}.weight" for layer in (0, 3)]
        noise = enhancement_noise([before[key] for key in keys], torch.tensor(1.0), generator)
        for key, added in zip(keys, noise, strict=True):
            torch.testing.assert_close(after[key], before[key] * factor + added)
    untouched = {key: value for key, value in before.items() if value.dim() < 2 or key.startswith("head")}
    assert same(untouched, after)


def test_ogm_ge__alpha_zero_still_adds_noise():
    view = view_of(2, torch.ones(8, 2).bool())
    before = gradients(view)
    OGMGE(alpha=0.0).modulate_gradients(view)
    assert not same(before, gradients(view))


def test_ogm_ge__draws_equal_noise_on_every_process_and_new_noise_each_step():
    views = [fix_score(view_of(2), [0.6, 0.3]) for _ in range(3)]
    views[2] = fix_score(dataclasses.replace(views[2], clock=tiny.clock(0, 4)), [0.6, 0.3])
    for number, view in enumerate(views):
        torch.manual_seed(number)  # processes differ in their global generator
        OGMGE().modulate_gradients(view)
    assert same(gradients(views[0]), gradients(views[1]))
    assert not same(gradients(views[0]), gradients(views[2]))


def test_ogm_ge__leaves_the_global_generator_alone():
    view = view_of(2)
    state = torch.get_rng_state()
    OGMGE().modulate_gradients(view)
    assert torch.equal(state, torch.get_rng_state())


def test_ogm_ge__tensor_of_one_element_gets_no_noise():
    view = fix_score(view_of(2), [0.3, 0.6])
    lone = torch.nn.Parameter(torch.ones(1, 1))
    lone.grad = torch.full((1, 1), 2.0)
    groups = {name: [*owned, lone] if name == "rgb" else owned for name, owned in view.groups.items()}
    OGMGE().modulate_gradients(fix_score(dataclasses.replace(view, groups=groups), [0.3, 0.6]))
    assert lone.grad.item() == 2.0


def test_half_precision_gradients__are_edited_in_their_own_type():
    view = fix_score(view_of(2), [0.6, 0.3])
    kernel = torch.nn.Parameter(torch.ones(2, 3, dtype=torch.bfloat16))
    kernel.grad = torch.ones_like(kernel)
    groups = {"rgb": [kernel], "depth": []}
    OGMGE().modulate_gradients(fix_score(dataclasses.replace(view, groups=groups), [0.6, 0.3]))
    assert kernel.grad.dtype == torch.bfloat16
    assert kernel.grad.float().mean().item() == pytest.approx(1 - torch.tanh(torch.tensor(1.6)).item(), rel=0.01)


# --- registration ---


@pytest.mark.parametrize(("options", "strategy"), [(OGMOptions, OGM), (OGMGEOptions, OGMGE)])
def test_options__defaults_are_those_of_the_constructor(options, strategy):
    parameters = inspect.signature(strategy).parameters
    assert {name: parameters[name].default for name in options.model_fields} == options().model_dump()
    assert all(field.description for field in options.model_fields.values())


def test_options__refuse_unknown_keys_and_reversed_epochs():
    with pytest.raises(ValidationError, match="aplha"):
        OGMOptions(aplha=0.1)
    with pytest.raises(ValidationError, match="first_epoch 60 lies behind last_epoch 50"):
        OGMOptions(first_epoch=60)


@pytest.mark.parametrize(
    ("module", "name", "requires"),
    [(none, "none", set()), (ogm, "ogm", {"class_probability"}), (ogm_ge, "ogm_ge", {"class_probability"})],
)
def test_component__is_offered_once_and_builds(module, name, requires):
    found = []
    module.robustmm_register_balancers(found.append)
    assert [component.name for component in found] == [name]
    assert found[0].requires == requires
    balancer = found[0].build(**dict(found[0].options()))
    assert balancer.state_dict() == {}
    balancer.load_state_dict({})


def test_none__leaves_losses_and_gradients_alone():
    view = view_of(2)
    before = gradients(view)
    NoBalancing().modulate_gradients(view)
    assert same(before, gradients(view))
