"""AGM: the released code's numbers, the worked example, Shapley values, and what is left alone."""

import dataclasses
import inspect

import pytest
import released
import tiny_models as tiny
import torch
from pydantic import ValidationError
from robustmm_plugins.balancing import agm
from robustmm_plugins.balancing.agm import AGM, AGMOptions, ahead, modulation, scaled_sum, shapley_values
from robustmm_plugins.missing.zero_input import ZeroInput
from torch import nn

from robustmm import ConfigError, LossTerm, Method, RunFailed
from robustmm.balancing.epoch import EpochView

GOLDEN = released.golden("agm")
NAN = float("nan")
TWO = {"audio": "net.audio_net.fc", "visual": "net.visual_net.fc", "head": "net.fusion_module.fc_out"}
THREE = {name: f"net.{name}_encoder.fc" for name in ("audio", "visual", "text")} | {"head": "net.head.fc"}
#: Names of the released subsets in the order of `subset_table`.
SUBSETS = {
    2: ("audio", "visual", "audio_visual"),
    3: ("audio", "visual", "audio_visual", "text", "audio_text", "visual_text", "all"),
}


def released_method(case, names):
    """Raw inputs are zero where a modality is hidden, as released."""
    given = {
        name: (case["parameters"][f"{own}.weight"], case["parameters"][f"{own}.bias"]) for name, own in names.items()
    }
    encoders = {name: own for name, own in given.items() if name != "head"}
    return released.linear_method(encoders, given["head"], activation=nn.Tanh, policy=ZeroInput({}))


def with_history(mean, steps, **options):
    strategy = AGM(**options)
    strategy.history = torch.tensor([mean, [float(steps)] * len(mean)])
    return strategy


def assert_gradients(method, names, expected):
    layers = released.layers_of(method)
    for name, own in names.items():
        for part in ("weight", "bias"):
            found = getattr(layers[name], part).grad
            torch.testing.assert_close(found, released.exact(expected[f"{own}.{part}"]), rtol=2e-5, atol=1e-8)


def clip_as_released(method, limit=1.0):
    """Bound the norm of all gradients once an element of the last layer's exceeds the bound."""
    if method.head.linear.weight.grad.abs().max() > limit:
        nn.utils.clip_grad_norm_(method.parameters(), limit)


def values_of(logits, count):
    """(2**M, B, C) with 0 for the empty subset."""
    values = [released.exact(logits[name]) for name in SUBSETS[count]]
    return torch.stack([torch.zeros_like(values[0]), *values])


def view_of(count, presence=None, *, epoch=0, size=8, dense=False):
    torch.manual_seed(0)
    method = Method(tiny.blueprint(count, dense=dense))
    data = tiny.batch(count, size=size, dense=dense)
    presence = torch.ones(size, count, dtype=torch.bool) if presence is None else presence
    view = tiny.step_view(method, data, presence, at=tiny.clock(epoch))
    view.output = method(data.inputs, presence, size=tuple(data.target.shape[1:]))
    return view


# --- against the authors' code ---


@pytest.mark.parametrize(("which", "names"), [("two_modalities", TWO), ("three_modalities", THREE)])
def test_steps__have_the_released_losses_scores_and_gradients(which, names):
    case = GOLDEN[which]
    modalities = [name for name in names if name != "head"]
    method = released_method(case, names)
    strategy = AGM(alpha=case["alpha"])
    for number, expected in enumerate(case["steps"]):
        data = released.batch_of(expected, modalities)
        _, terms = released.step(method, strategy, data, number=number)
        assert terms["task"].value.item() == pytest.approx(expected["loss"], rel=1e-6)
        mean, steps = strategy.history
        torch.testing.assert_close(mean.double(), released.exact(expected["running_score"]), rtol=1e-6, atol=0)
        assert steps.tolist() == [number + 1] * len(modalities)
        clip_as_released(method)
        assert_gradients(method, names, expected["gradient"])


@pytest.mark.parametrize(("which", "count"), [("two_modalities", 2), ("three_modalities", 3)])
def test_formulas__have_the_released_values_and_gradients(which, count):
    case = GOLDEN[which]
    history = torch.full((count,), NAN, dtype=torch.float64)
    for expected in case["steps"]:
        score = released.exact(expected["score"])
        torch.testing.assert_close(ahead(score), released.exact(expected["ratio"]))
        torch.testing.assert_close(ahead(history), released.exact(expected["optimal_ratio"]))
        factors = modulation(score, history, case["alpha"], 10.0)
        torch.testing.assert_close(factors, released.exact(expected["coefficient"]))
        history = released.exact(expected["running_score"])
        values = values_of(expected["logits"], count).requires_grad_()
        parts = shapley_values(values)
        names = ("audio", "visual", "text")[:count]
        torch.testing.assert_close(parts, torch.stack([released.exact(expected["shapley"][name]) for name in names]))
        loss = nn.functional.cross_entropy(scaled_sum(parts, factors), torch.tensor(expected["label"]))
        loss.backward()
        given = expected["gradient_of_logits"]
        torch.testing.assert_close(
            values.grad[1:], torch.stack([released.exact(given[name]) for name in SUBSETS[count]])
        )


def test_clipping__by_norm_is_the_released_one_where_an_element_is_large():
    case = GOLDEN["clipped"]
    method = released_method(case, TWO)
    strategy = with_history(case["running_score_before"], case["step"] - 1, alpha=case["alpha"])
    released.step(method, strategy, released.batch_of(case, ("audio", "visual")))
    assert method.head.linear.weight.grad.abs().max() > case["max_element"]
    clip_as_released(method, case["max_norm"])
    assert_gradients(method, TWO, case["gradient"])


def test_before_the_first_epoch__scores_are_taken_and_training_is_plain():
    """The release does the same behind the last epoch."""
    case = GOLDEN["outside_the_epochs"]
    method = released_method(case, TWO)
    before = with_history(case["running_score_before"], case["step"] - 1, first_epoch=case["epoch"] + 1)
    released.step(method, before, released.batch_of(case, ("audio", "visual")), epoch=case["epoch"])
    assert_gradients(method, TWO, case["gradient"])
    expected = released.exact(case["running_score"])
    torch.testing.assert_close(before.history[0].double(), expected, rtol=1e-6, atol=0)


# --- the worked example ---


def worked_parts():
    values = torch.tensor([[[0.0, 0.0]], [[1.5, 0.2]], [[0.4, 0.1]], [[2.0, 0.0]]])
    return shapley_values(values)


def test_worked_example():
    parts = worked_parts()
    torch.testing.assert_close(parts, torch.tensor([[[1.55, 0.05]], [[0.45, -0.05]]]))
    torch.testing.assert_close(parts.sum(dim=0), torch.tensor([[2.0, 0.0]]))
    sums, counts = agm.score_sums(tiny.TinyTask(classes=2), parts, torch.tensor([0]), torch.ones(1, 2).bool())
    torch.testing.assert_close(sums, torch.tensor([0.201413, 0.474077]), atol=1e-6, rtol=0)
    assert counts.tolist() == [1, 1]
    torch.testing.assert_close(ahead(sums), torch.tensor([1.313458, 0.761349]), atol=1e-6, rtol=0)
    history = torch.tensor([0.5, 0.6])
    torch.testing.assert_close(ahead(history), torch.tensor([1.105171, 0.904837]), atol=1e-6, rtol=0)
    factors = modulation(sums, history, 1.0, 10.0)
    torch.testing.assert_close(factors, torch.tensor([0.811974, 1.154294]), atol=2e-6, rtol=0)


def test_history__is_the_mean_over_steps():
    """The tenth step of the worked example."""
    strategy = with_history([0.5, 0.6], 9)
    strategy._sums = torch.tensor([[0.201413, 0.474077], [1.0, 1.0]])
    strategy.modulate_gradients(view_of(2))
    torch.testing.assert_close(strategy.history[0], torch.tensor([0.470141, 0.587408]), atol=1e-6, rtol=0)
    assert strategy.history[1].tolist() == [10, 10]


# --- properties ---


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_parts__add_up_to_what_all_give_together(count):
    values = torch.randn(2**count, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(shapley_values(values).sum(dim=0), values[-1] - values[0])


def test_parts__of_three_follow_the_closed_form():
    """(v(all) - v(others) + v(m)) / 3 + (v(m+w) + v(m+u) - v(w) - v(u)) / 6."""
    v = torch.randn(8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v[0] = 0
    expected = [
        (v[7] - v[6] + v[1]) / 3 + (v[3] + v[5] - v[2] - v[4]) / 6,
        (v[7] - v[5] + v[2]) / 3 + (v[3] + v[6] - v[1] - v[4]) / 6,
        (v[7] - v[3] + v[4]) / 3 + (v[5] + v[6] - v[1] - v[2]) / 6,
    ]
    torch.testing.assert_close(shapley_values(v), torch.stack(expected))


def test_parts__of_an_ignored_modality_are_zero():
    v = torch.randn(4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.cat([v, v])  # the third modality changes nothing
    assert shapley_values(values)[2].abs() < 1e-12


def test_two_modalities__are_ahead_by_inverse_ratios():
    found = ahead(torch.tensor([0.3, 1.1]))
    assert found.prod().item() == pytest.approx(1)


@pytest.mark.parametrize("score", [[0.7, 0.7], [0.7, 0.7, 0.7], [0.7, NAN], [NAN, NAN]])
def test_factors__are_one_for_equal_scores_and_without_another_modality(score):
    assert modulation(torch.tensor(score), torch.full((len(score),), 0.9), 1.5, 10.0).tolist() == [1.0] * len(score)


def test_factors__alpha_zero_is_one():
    assert modulation(torch.tensor([0.1, 2.0]), torch.tensor([0.5, 0.6]), 0.0, 10.0).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("cap", "expected"), [(0.1, 0.1), (None, 0.904837 - 0.149569)])
def test_factors__are_capped_before_alpha(cap, expected):
    """Scores 0.1 and 2: the second is far behind, r = exp(-1.9); its history says exp(-0.1)."""
    factor = modulation(torch.tensor([0.1, 2.0]), torch.tensor([0.5, 0.6]), 2.0, cap)[1]
    assert factor.log().item() == pytest.approx(2 * expected, abs=1e-5)


def test_factors__compare_histories_of_the_modalities_that_are_here():
    """Without the third one in this step the others are compared as two."""
    here = modulation(torch.tensor([0.2, 0.5, NAN]), torch.tensor([0.5, 0.6, 9.0]), 1.0, None)
    torch.testing.assert_close(here[:2], modulation(torch.tensor([0.2, 0.5]), torch.tensor([0.5, 0.6]), 1.0, None))
    assert here[2] == 1


def test_probability__is_floored():
    parts = torch.tensor([[[-100.0, 0.0]], [[0.0, 0.0]]])
    sums, _ = agm.score_sums(tiny.TinyTask(classes=2), parts, torch.tensor([0]), torch.ones(1, 2).bool())
    assert sums[0].item() == pytest.approx(18.420681)


def test_linear_model__scales_each_encoder_by_its_own_factor(monkeypatch):
    """Concatenation and a linear head without biases: exactly 0.5 and 2."""
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(2, 3, generator=generator).tolist() for name in ("audio", "visual")}
    head = torch.randn(3, 4, generator=generator).tolist()
    method = released.linear_method({n: (w, [0.0, 0.0]) for n, w in weights.items()}, (head, [0.0] * 3))
    case = {name: torch.randn(5, 3, generator=generator).tolist() for name in weights} | {"label": [0, 1, 2, 0, 1]}
    data = released.batch_of(case, tuple(weights))
    monkeypatch.setattr(agm, "modulation", lambda *_: torch.tensor([0.5, 2.0], dtype=torch.float64))
    gradients = []
    for strategy in (released.Balancer(), AGM()):
        released.step(method, strategy, data)
        gradients.append([released.layers_of(method)[name].weight.grad.clone() for name in weights])
    for plain, ours, factor in zip(*gradients, (0.5, 2.0), strict=True):
        torch.testing.assert_close(ours, plain * factor)


def test_factors_of_one__give_the_gradients_of_plain_training(monkeypatch):
    """Also through BatchNorm and with missing modalities: parts add up, so every hidden pass cancels."""
    monkeypatch.setattr(agm, "modulation", lambda score, *_: torch.ones_like(score))
    gradients = []
    for strategy in (released.Balancer(), AGM()):
        torch.manual_seed(0)
        method = Method(tiny.blueprint(3))
        released.step(method, strategy, tiny.batch(3), tiny.mixed_presence(3))
        gradients.append([p.grad for p in method.parameters()])
    for plain, ours in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("count", [2, 3])
def test_samples__that_lack_a_modality_have_no_part_of_it(count, dense):
    view = view_of(count, tiny.mixed_presence(count), dense=dense)
    parts = AGM()._parts(view)
    for column in range(count):
        lacks = ~view.presence[:, column]
        assert (parts[column][lacks] == 0).all()
        assert (parts[column][~lacks] != 0).any()
    torch.testing.assert_close(parts.sum(dim=0), view.output.logits)
    alone = view.presence.sum(dim=1) == 1
    torch.testing.assert_close(parts[0][alone & view.presence[:, 0]], view.output.logits[alone & view.presence[:, 0]])


def test_scores__leave_out_samples_that_lack_a_modality():
    parts = torch.zeros(2, 3, 2)
    presence = torch.tensor([[True, True], [True, False], [True, False]])
    sums, counts = agm.score_sums(tiny.TinyTask(classes=2), parts, torch.tensor([0, 1, 1]), presence)
    assert counts.tolist() == [3, 1]
    torch.testing.assert_close(sums, torch.tensor([3.0, 1.0]) * torch.tensor(2.0).log())


def test_history__of_an_absent_modality_stays():
    strategy = with_history([0.5, 0.6, 0.7], 4)
    torch.manual_seed(0)
    released.step(Method(tiny.blueprint(3)), strategy, tiny.batch(3), tiny.shown(("rgb", "depth"), 3))
    mean, steps = strategy.history
    assert steps.tolist() == [5, 5, 4]
    assert mean[2].item() == pytest.approx(0.7)
    assert mean[0].item() != pytest.approx(0.5)


def test_history__does_not_take_what_is_not_finite():
    strategy = with_history([0.5, 0.6], 4)
    strategy._sums = torch.tensor([[float("inf"), 1.0], [1.0, 1.0]])
    strategy.modulate_gradients(view_of(2))
    assert strategy.history[0].tolist() == pytest.approx([0.5, (0.6 * 4 + 1) / 5])


def test_processes__share_sums_not_means():
    """3 here over 1 row and 1 elsewhere over 3: 1, not 5 / 3."""
    strategy = AGM()
    strategy._sums = torch.tensor([[3.0, 1.0], [1.0, 1.0]])
    view = dataclasses.replace(view_of(2), all_reduce=lambda sums: sums + torch.tensor([[1.0, 1.0], [3.0, 1.0]]))
    assert strategy._score(view).tolist() == [1.0, 1.0]


def test_accumulation__counts_all_batches_of_the_update_and_grows_the_history_once():
    strategy = AGM()
    first, second = view_of(2, size=8), view_of(2, size=4)
    whole = torch.ones(12, 2, dtype=torch.bool)
    views = [dataclasses.replace(first, whole=whole)]
    views.append(dataclasses.replace(second, whole=whole, earlier=views[0]))
    for view, made in zip(views, (first, second), strict=True):
        view.output = made.output
        strategy.weigh(view.method.losses(view.output, view.batch, view.clock), view)
    assert strategy._sums[1].tolist() == [12, 12]
    strategy.modulate_gradients(views[-1])
    assert strategy.history[1].tolist() == [1, 1]


def test_side_outputs__keep_their_loss():
    view = view_of(2, dense=True)
    task = view.method.task
    view.output.coarser = [view.output.logits * 2]
    terms = {"task": LossTerm(task.loss_over(view.output.scales, view.batch.target), "task")}
    weighed = AGM().weigh(terms, view)
    torch.testing.assert_close(weighed["task"].value, terms["task"].value)
    assert view.method.trunk.training


@pytest.mark.parametrize("name", ["task", "unimodal"])
def test_another_task_loss__is_refused_instead_of_replaced(name):
    view = view_of(2)
    terms = {name: LossTerm(view.output.logits.square().mean(), "task")}
    with pytest.raises(RunFailed, match="this method has another loss in its place"):
        AGM().weigh(terms, view)


def test_other_terms__are_handed_on():
    view = view_of(2)
    terms = view.method.losses(view.output, view.batch, view.clock) | {"more": LossTerm(torch.ones(()), "auxiliary")}
    weighed = AGM().weigh(terms, view)
    assert list(weighed) == ["task", "more"]
    assert weighed["more"] is terms["more"]


@pytest.mark.parametrize(("options", "epoch"), [({"alpha": 0.0}, 0), ({"last_epoch": 2}, 3)])
def test_inactive__leaves_terms_as_they_are(options, epoch):
    view = view_of(2, epoch=epoch)
    strategy = AGM(**options)
    terms = view.method.losses(view.output, view.batch, view.clock)
    assert strategy.weigh(terms, view) is terms
    strategy.modulate_gradients(view)
    assert strategy.history is None


def test_too_many_modalities__are_refused_with_the_repair():
    view = view_of(3)
    strategy = AGM(max_modalities=2)
    terms = view.method.losses(view.output, view.batch, view.clock)
    message = "3 modalities take 6 further passes in each step, and 2 modalities are allowed; choose some with data.mod"
    with pytest.raises(ConfigError, match=message):
        strategy.weigh(terms, view)
    epoch = EpochView(view.method, view.clock, view.groups, 8, None, None, None, None, None)
    with pytest.raises(ConfigError, match=message):
        strategy.on_epoch_start(epoch)
    assert AGM(max_modalities=3).on_epoch_start(epoch) is None


def test_autocast__gives_finite_gradients_and_a_float32_loss():
    method = Method(tiny.blueprint(3))
    strategy = AGM(alpha=2.5)
    with torch.autocast("cpu", torch.bfloat16):
        for number in range(2):
            _, terms = released.step(method, strategy, tiny.batch(3, seed=number), tiny.mixed_presence(3))
    assert terms["task"].value.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in method.parameters())
    assert strategy.history.dtype == torch.float32


def test_statistics_and_mode__are_left_alone():
    view = view_of(2)
    before = {name: value.clone() for name, value in view.method.named_buffers()}
    AGM().weigh(view.method.losses(view.output, view.batch, view.clock), view)
    assert all(torch.equal(value, before[name]) for name, value in view.method.named_buffers())
    assert all(part.training for part in view.method.modules())


def test_state__is_the_history():
    assert AGM().state_dict() == {}
    fresh = AGM()
    fresh.load_state_dict(with_history([0.5, 0.6], 3).state_dict())
    assert fresh.history.tolist() == with_history([0.5, 0.6], 3).history.tolist()


def test_options__defaults_are_those_of_the_constructor():
    parameters = inspect.signature(AGM).parameters
    assert {name: parameters[name].default for name in AGMOptions.model_fields} == AGMOptions().model_dump()
    with pytest.raises(ValidationError, match="first_epoch 30 lies behind last_epoch 20"):
        AGMOptions(first_epoch=30)
