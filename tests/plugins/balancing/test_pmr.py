"""PMR: the released code's numbers, the worked example, prototypes, and what its terms reach."""

import dataclasses
import inspect

import pytest
import released
import tiny_models as tiny
import torch
from robustmm_plugins.balancing import pmr
from robustmm_plugins.balancing.pmr import (
    PMR,
    PMROptions,
    class_sums,
    coefficients,
    leads,
    prototype_log_probability,
    unit_length,
    updated_prototypes,
)

from robustmm import Method, SegmentationTask
from robustmm.balancing.epoch import EpochView

GOLDEN = released.golden("pmr")
MODALITIES = ("audio", "visual")
NAN = float("nan")


def released_method(case):
    """With a head per modality that are summed, as one head behind concatenation, which is the same."""
    weights = case["parameters"]
    given = {name: (weights[f"{name}_net.weight"], weights[f"{name}_net.bias"]) for name in MODALITIES}
    if case["fusion"] == "concat":
        return released.linear_method(
            given, (weights["fusion_module.fc_out.weight"], weights["fusion_module.fc_out.bias"])
        )
    own = [
        (released.exact(weights[f"fusion_module.fc_{x}.weight"]), weights[f"fusion_module.fc_{x}.bias"]) for x in "xy"
    ]
    bias = [sum(pair) for pair in zip(own[0][1], own[1][1], strict=True)]
    return released.linear_method(given, (torch.cat([own[0][0], own[1][0]], dim=1).tolist(), bias))


def head_gradients(case):
    gradient = case["gradient"]
    if case["fusion"] == "concat":
        return [released.exact(gradient[f"fusion_module.fc_out.{part}"]) for part in ("weight", "bias")]
    blocks = [released.exact(gradient[f"fusion_module.fc_{x}.weight"]) for x in "xy"]
    return [torch.cat(blocks, dim=1), released.exact(gradient["fusion_module.fc_x.bias"])]


def with_prototypes(prototypes, **options):
    strategy = PMR(**options)
    strategy.prototypes = dict(prototypes)
    return strategy


def ready(count, *, presence=None, dense=False, size=8, epoch=0, seed=0, **options):
    """A strategy with prototypes of the model's width, and a view before backward."""
    torch.manual_seed(0)
    task = SegmentationTask(["a", "b", "c"]) if dense else None
    method = Method(tiny.blueprint(count, dense=dense, task=task))
    data = tiny.batch(count, size=size, dense=dense, seed=seed)
    presence = torch.ones(size, count, dtype=torch.bool) if presence is None else presence
    view = tiny.step_view(method, data, presence, at=tiny.clock(epoch))
    view.output = method.train_output(data, presence)
    generator = torch.Generator().manual_seed(1)
    prototypes = {name: torch.randn(3, tiny.WIDTH, generator=generator) for name in view.modalities}
    method.zero_grad(set_to_none=True)
    return with_prototypes(prototypes, **options), view


def weighed(strategy, view):
    return strategy.weigh(view.method.losses(view.output, view.batch, view.clock), view)


def epoch_view(method, data, *, epoch=0, **options):
    """Batches of four of the samples asked for."""

    def batches(indices=None):
        chosen = torch.arange(len(data)) if indices is None else indices
        for rows in chosen.split(4):
            inputs = {name: x[rows] for name, x in data.inputs.items()}
            ids = tuple(data.ids[row] for row in rows.tolist())
            yield released.Batch(inputs, data.observed[rows], data.target[rows], ids, rows)

    groups = method.trunk.parameter_groups()
    return EpochView(method, tiny.clock(epoch), groups, len(data), batches, None, None, None, None, **options)


# --- against the authors' code ---


@pytest.mark.parametrize("which", ["audio_leads", "visual_leads", "sum_fusion", "after_the_epochs"])
def test_step__has_the_released_loss_and_gradients(which):
    case = GOLDEN[which]
    method = released_method(case)
    prototypes = {name: released.exact(case["prototypes"][name]) for name in MODALITIES}
    strategy = with_prototypes(
        prototypes, alpha=case["alpha"], coef="binary", entropy_epochs=0, last_epoch=case["modulation"][1]
    )
    _, terms = released.step(method, strategy, released.batch_of(case, MODALITIES), epoch=case["epoch"])
    assert sum(term.value for term in terms.values()).item() == pytest.approx(case["loss"], rel=1e-7)
    layers = released.layers_of(method)
    for name in MODALITIES:
        for part in ("weight", "bias"):
            expected = released.exact(case["gradient"][f"{name}_net.{part}"])
            torch.testing.assert_close(getattr(layers[name], part).grad, expected, rtol=1e-6, atol=1e-9)
    for part, expected in zip(("weight", "bias"), head_gradients(case), strict=True):
        torch.testing.assert_close(getattr(layers["head"], part).grad, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("which", ["audio_leads", "visual_leads", "sum_fusion"])
def test_prototype_loss__has_the_released_values_and_gradients(which):
    case = GOLDEN[which]
    target = torch.tensor(case["label"])
    scores = []
    for place, name in enumerate(MODALITIES):
        features = released.exact(case["features"][name]).requires_grad_()
        log_p = prototype_log_probability(features, released.exact(case["prototypes"][name]))
        loss = torch.nn.functional.nll_loss(log_p, target)
        loss.backward()
        assert loss.item() == pytest.approx(case["prototype_cross_entropy"][place])
        expected = released.exact(case["prototype_feature_gradient"][name])
        torch.testing.assert_close(features.grad, expected, rtol=1e-6, atol=1e-10)
        scores.append(log_p.detach().gather(1, target[:, None]).squeeze(1).exp())
    probability = torch.stack(scores, dim=1)
    torch.testing.assert_close(probability.sum(dim=0), released.exact(case["score"]))
    sums = leads(probability, torch.ones(len(target), 2).bool())
    assert (sums[0, 1] / sums[1, 0]).item() == pytest.approx(case["ratio"])
    beta, _ = coefficients(sums, "binary")
    assert (beta * case["alpha"]).tolist() == case["binary_coefficient"]


def test_prototypes__are_the_released_ones_over_two_epochs():
    case = GOLDEN["prototypes"]
    target = torch.tensor(case["label"])
    for name in MODALITIES:
        prototypes = None
        for epoch in ("first", "second"):
            features = released.exact(case[epoch]["features"][name])
            sums, counts = class_sums(features, target, torch.ones(len(target)).bool(), 6)
            prototypes = updated_prototypes(prototypes, sums, counts, case["momentum"])
            torch.testing.assert_close(prototypes, released.exact(case[epoch]["prototypes"][name]))


# --- the worked example ---


def worked_step(**options):
    """Encoders that hand on what they get, and a head of zeros."""
    identity = [[1.0, 0.0], [0.0, 1.0]]
    encoders = {name: (identity, [0.0, 0.0]) for name in MODALITIES}
    method = released.linear_method(encoders, ([[0.0] * 4] * 2, [0.0, 0.0]))
    case = {"audio": [[1, 0], [3, 0]], "visual": [[0.9, 0], [1.2, 0]], "label": [0, 1]}
    prototypes = {"audio": released.exact([[0, 0], [4, 0]]), "visual": released.exact([[0, 0], [2, 0]])}
    strategy = with_prototypes(prototypes, **options)
    _, terms = released.step(method, strategy, released.batch_of(case, MODALITIES))
    return method, {name: term.value.item() for name, term in terms.items()}


def test_worked_example__continuous():
    """rho = 1.533793: the second modality lags by gamma = 0.533793."""
    _, terms = worked_step(mu=0.01)
    assert terms["pce/audio"] == 0
    assert terms["pce/visual"] == pytest.approx(0.296563, abs=1e-6)
    assert terms["per/audio"] == pytest.approx(-0.01 * 0.533793 * 0.365334, abs=1e-8)
    assert terms["per/visual"] == 0
    assert sum(terms.values()) - terms["task"] == pytest.approx(0.294613, abs=1e-6)


def test_worked_example__binary():
    _, terms = worked_step(coef="binary", entropy_epochs=0)
    assert list(terms) == ["task", "pce/audio", "pce/visual"]
    assert terms["pce/audio"] == 0
    assert terms["pce/visual"] == pytest.approx(0.555577, abs=1e-6)


def test_terms__reach_their_own_encoder_alone():
    """The head of zeros lets no gradient of the task through to the encoders."""
    method, _ = worked_step(entropy_epochs=0)
    layers = released.layers_of(method)
    assert not layers["audio"].weight.grad.any()
    assert layers["visual"].weight.grad.any()
    strategy, view = ready(3)
    terms = weighed(strategy, view)
    assert any(terms[f"pce/{name}"].value > 0 for name in view.modalities)
    for name in view.modalities:
        reached = torch.autograd.grad(
            terms[f"pce/{name}"].value, list(view.method.parameters()), retain_graph=True, allow_unused=True
        )
        own = {id(parameter) for parameter in view.groups[name]}
        for parameter, gradient in zip(view.method.parameters(), reached, strict=True):
            assert id(parameter) in own or gradient is None or not gradient.any()
    assert all(term.role == "task" for term in terms.values())


# --- coefficients ---


def test_coefficients__swap_with_the_modalities():
    sums = torch.tensor([[3.0, 2.4], [2.0, 2.5]])
    beta, gamma = coefficients(sums, "continuous")
    torch.testing.assert_close(beta, torch.tensor([0.0, 0.2]))
    torch.testing.assert_close(gamma, torch.tensor([0.2, 0.0]))
    swapped = coefficients(sums.flip(0, 1), "continuous")
    assert torch.equal(swapped[0], beta.flip(0))
    assert torch.equal(swapped[1], gamma.flip(0))


def test_coefficients__of_more_compare_with_the_best_and_the_worst():
    """Mean probabilities 0.6, 0.5, 0.4 on the same rows."""
    sums = torch.tensor([0.6, 0.5, 0.4])[:, None].expand(3, 3)
    beta, gamma = coefficients(sums, "continuous")
    torch.testing.assert_close(beta, torch.tensor([0.0, 0.2, 0.5]))
    torch.testing.assert_close(gamma, torch.tensor([0.5, 0.25, 0.0]))


@pytest.mark.parametrize("coef", ["continuous", "binary"])
@pytest.mark.parametrize("value", [0.0, 0.3, 1 / 3])
def test_coefficients__of_equal_scores_are_zero(coef, value):
    sums = torch.full((3, 3), value)
    sums[0] *= 1 + 1e-7
    assert all(not own.any() for own in coefficients(sums, coef))


def test_coefficients__are_at_most_one():
    beta, gamma = coefficients(torch.tensor([[1.0, 9.0], [0.0, 0.0]]), "continuous")
    assert beta.tolist() == [0, 1]
    assert gamma.tolist() == [1, 0]


def test_pairs__are_compared_on_rows_that_show_both():
    probability = torch.tensor([[0.9, 0.1], [0.5, 0.4], [0.2, 0.8]])
    present = torch.tensor([[True, False], [True, True], [False, True]])
    torch.testing.assert_close(leads(probability, present), torch.tensor([[1.4, 0.5], [0.4, 1.2]]))
    assert not coefficients(leads(probability, ~present[:, [0, 0]] ^ present), "continuous")[0].isnan().any()


# --- prototypes ---


@pytest.mark.parametrize(("momentum", "expected"), [(1.0, [1.0, 3.0]), (0.0, [5.0, 3.0]), (0.25, [4.0, 3.0])])
def test_prototypes__move_by_momentum_and_stay_where_the_class_is_absent(momentum, expected):
    old = torch.tensor([[1.0], [3.0], [NAN], [NAN]])
    found = updated_prototypes(old, torch.tensor([[10.0], [0.0], [6.0], [0.0]]), torch.tensor([2.0, 0, 3, 0]), momentum)
    assert found[:2, 0].tolist() == expected
    assert found[2].item() == 2
    assert found[3].isnan()


def test_class_sums__leave_out_what_is_not_kept():
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    sums, counts = class_sums(features, torch.tensor([1, 1, 0]), torch.tensor([True, False, True]), 3)
    assert sums.tolist() == [[5, 6], [1, 2], [0, 0]]
    assert counts.tolist() == [1, 1, 0]


def test_log_probability__leaves_out_classes_without_a_prototype():
    features = torch.tensor([[0.5, 0.0]], requires_grad=True)
    found = prototype_log_probability(features, torch.tensor([[0.0, 0.0], [NAN, NAN], [2.0, 0.0]]))
    expected = torch.tensor([-0.5, -1.5]).log_softmax(dim=0)
    torch.testing.assert_close(found[0, [0, 2]], expected)
    assert found[0, 1] == -torch.inf
    (pmr._entropy(found).sum() - found[0, 0]).backward()
    assert features.grad.isfinite().all()
    torch.testing.assert_close(pmr._entropy(found)[0], -(expected.exp() * expected).sum())


def test_log_probability__without_any_prototype_is_uniform():
    found = prototype_log_probability(torch.ones(2, 2), torch.full((4, 2), NAN))
    torch.testing.assert_close(found, torch.full((2, 4), -torch.tensor(4.0).log().item()))


def test_feature_equal_to_its_prototype__has_a_finite_gradient():
    features = torch.tensor([[1.0, 2.0]], requires_grad=True)
    prototype_log_probability(features, torch.tensor([[1.0, 2.0], [0.0, 0.0]]))[0, 0].backward()
    assert features.grad.isfinite().all()


def test_epoch_start__takes_class_means_of_what_the_encoders_give_in_evaluation():
    torch.manual_seed(0)
    method = Method(tiny.blueprint(2))
    data = dataclasses.replace(tiny.batch(2, size=12), observed=tiny.mixed_presence(2, 12))
    strategy = PMR(fraction=1.0)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    assert strategy.on_epoch_start(epoch_view(method, data)) is None
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert method.training
    method.eval()
    features, _ = method.trunk(data.inputs, data.observed)
    for column, name in enumerate(method.modalities):
        for label in range(3):
            rows = (data.target == label) & data.observed[:, column]
            expected = features[name][-1][rows].detach().mean(dim=0)  # NaN for a class that nothing shows
            torch.testing.assert_close(strategy.prototypes[name][label], expected, equal_nan=True)
        assert not strategy.prototypes[name].requires_grad


def test_epoch_start__draws_the_share_asked_for_anew_each_epoch():
    method = Method(tiny.blueprint(2))
    data = tiny.batch(2, size=40)
    strategy = PMR(fraction=0.25)
    chosen = [strategy._chosen(epoch_view(method, data, epoch=epoch)) for epoch in (0, 0, 1)]
    assert len(chosen[0].unique()) == 10
    assert torch.equal(chosen[0], chosen[1])
    assert not torch.equal(chosen[0], chosen[2])


def test_epoch_start__adds_up_over_processes_before_it_divides():
    """Another process with the same sums and one more sample of nothing: means are shares of both."""
    torch.manual_seed(0)
    method, data = Method(tiny.blueprint(2)), tiny.batch(2, size=12)
    alone, shared = PMR(fraction=1.0), PMR(fraction=1.0)
    alone.on_epoch_start(epoch_view(method, data))
    shared.on_epoch_start(epoch_view(method, data, all_reduce=lambda found: found + torch.ones_like(found)))
    counts = torch.bincount(data.target, minlength=3)[:, None]
    for name in method.modalities:
        expected = (alone.prototypes[name] * counts + 1) / (counts + 1)
        torch.testing.assert_close(shared.prototypes[name], expected)


def test_process_without_a_sample__takes_part():
    method, data = Method(tiny.blueprint(2)), tiny.batch(2, size=4)
    strategy = PMR()
    strategy.on_epoch_start(dataclasses.replace(epoch_view(method, data), batches=lambda indices: iter(())))
    assert all(own.shape == (3, tiny.WIDTH) and own.isnan().all() for own in strategy.prototypes.values())


def test_never_seen_classes__give_finite_terms_and_no_pull():
    strategy, view = ready(2)
    for own in strategy.prototypes.values():
        own[view.batch.target[0]] = NAN
    terms = weighed(strategy, view)
    assert all(term.value.isfinite() for term in terms.values())
    torch.stack([term.value for term in terms.values()]).sum().backward()
    assert all(p.grad.isfinite().all() for p in view.method.parameters())


def test_no_prototype_at_all__adds_nothing():
    strategy, view = ready(2)
    strategy.prototypes = {name: torch.full_like(own, NAN) for name, own in strategy.prototypes.items()}
    terms = weighed(strategy, view)
    assert all(terms[name].value == 0 for name in terms if name != "task")


# --- missing modalities, processes, accumulation ---


def test_absent_modality__has_no_term_and_its_samples_count_nowhere():
    strategy, view = ready(3, presence=tiny.shown(("rgb", "depth"), 3))
    terms = weighed(strategy, view)
    assert terms["pce/ir"].value == 0
    assert terms["per/ir"].value == 0
    assert any(terms[f"pce/{name}"].value > 0 for name in ("rgb", "depth"))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_losses__are_means_over_the_rows_that_show_the_modality(count):
    presence = tiny.mixed_presence(count)
    strategy, view = ready(count, presence=presence, coef="binary", alpha=2.0)
    terms = weighed(strategy, view)
    beta = beta_of(strategy)
    for column, name in enumerate(view.modalities):
        rows = presence[:, column]
        log_p = prototype_log_probability(view.output.features[name][-1][rows], strategy.prototypes[name])
        expected = 2.0 * beta[column] * torch.nn.functional.nll_loss(log_p, view.batch.target[rows])
        torch.testing.assert_close(terms[f"pce/{name}"].value, expected)


def beta_of(strategy):
    return coefficients(strategy._sums, strategy.coef)[0]


def test_processes__compare_sums_over_both():
    """Another process in which the other modality leads as much: even."""
    strategy, view = ready(2, coef="binary")
    weighed(strategy, view)
    own = strategy._sums
    view = dataclasses.replace(view, all_reduce=lambda sums: sums + own.flip(0, 1) if sums.dim() == 2 else sums)
    view.output = view.method.train_output(view.batch, view.shown)
    terms = weighed(strategy, view)
    assert all(terms[name].value == 0 for name in terms if name != "task")


@pytest.mark.parametrize("presence", [None, tiny.mixed_presence(2)])
def test_accumulation__weighs_batches_by_their_rows(presence, monkeypatch):
    """Two batches of different size give the terms of one with all of their samples."""
    monkeypatch.setattr(pmr, "coefficients", lambda *_: (torch.ones(2), torch.ones(2)))
    strategy, view = ready(2, presence=presence)
    parts = []
    for rows in (slice(0, 6), slice(6, 8)):
        inputs = {name: x[rows] for name, x in view.batch.inputs.items()}
        batch = released.Batch(
            inputs, view.batch.observed[rows], view.batch.target[rows], view.batch.ids[rows], view.batch.index[rows]
        )
        earlier = parts[-1] if parts else None
        part = dataclasses.replace(view, batch=batch, shown=view.shown[rows], whole=view.shown, earlier=earlier)
        part.output = view.output.detached()
        part.output.features = {n: [level[rows] for level in own] for n, own in view.output.features.items()}
        part.output.presence = view.output.presence[rows]
        parts.append(part)
    found = [strategy.weigh({}, part) for part in parts]
    whole = strategy.weigh({}, view)
    assert list(whole) == ["pce/rgb", "pce/depth", "per/rgb", "per/depth"]
    for name, term in whole.items():
        total = sum(terms[name].value * part.share for terms, part in zip(found, parts, strict=True))
        torch.testing.assert_close(total, term.value)


def test_accumulation__compares_on_the_batches_so_far():
    strategy, view = ready(2)
    strategy.weigh({}, view)
    first = strategy._sums
    second = dataclasses.replace(view, earlier=view)
    second.output = view.output
    strategy.weigh({}, second)
    torch.testing.assert_close(strategy._sums, 2 * first)
    strategy.weigh({}, view)  # the next update begins anew
    torch.testing.assert_close(strategy._sums, first)


def test_order_of_modalities__does_not_matter():
    strategy, view = ready(3, presence=tiny.mixed_presence(3))
    terms = weighed(strategy, view)
    names = view.modalities[::-1]
    turned = dataclasses.replace(
        view,
        batch=dataclasses.replace(view.batch, inputs={name: view.batch.inputs[name] for name in names}),
        shown=view.shown.flip(1),
    )
    turned.output = dataclasses.replace(
        view.output,
        features={name: view.output.features[name] for name in names},
        presence=view.output.presence.flip(1),
    )
    again = strategy.weigh({}, turned)
    for name in names:
        torch.testing.assert_close(again[f"pce/{name}"].value, terms[f"pce/{name}"].value)
        torch.testing.assert_close(again[f"per/{name}"].value, terms[f"per/{name}"].value)


# --- dense prediction ---


def test_dense__takes_labels_at_the_encoders_resolution_without_void():
    strategy, view = ready(2, dense=True, coef="binary", entropy_epochs=0)
    view.batch.target[:4] = 255
    terms = strategy.weigh({}, view)
    level = {name: own[-1] for name, own in view.output.features.items()}
    target = view.batch.target[:, ::2, ::2]  # 4 x 6 -> 2 x 3
    valid = target != 255
    beta = beta_of(strategy)
    assert beta.sum() == 1
    for column, name in enumerate(view.modalities):
        rows = torch.nn.functional.normalize(level[name].movedim(1, -1)[valid], dim=1)
        loss = torch.nn.functional.nll_loss(prototype_log_probability(rows, strategy.prototypes[name]), target[valid])
        torch.testing.assert_close(terms[f"pce/{name}"].value, beta[column] * loss)


def test_dense__draws_positions_alike_for_all_images_and_modalities():
    strategy, view = ready(2, dense=True, max_positions=2)
    levels = [own[-1] for own in view.output.features.values()]
    task = view.method.task
    rows = strategy._rows(task, levels, view.batch.target, view.presence, view.generator("pmr positions"))
    again = strategy._rows(task, levels, view.batch.target, view.presence, view.generator("pmr positions"))
    assert [own.shape for own in rows.features] == [(16, tiny.WIDTH)] * 2
    assert all(torch.equal(one, other) for one, other in zip(rows.features, again.features, strict=True))
    places = pmr._places((2, 3), 2, view.generator("pmr positions"))
    expected = torch.nn.functional.normalize(levels[0].flatten(2)[:, :, places].movedim(1, -1).flatten(0, 1), dim=1)
    torch.testing.assert_close(rows.features[0], expected)
    assert torch.equal(rows.target, view.batch.target[:, ::2, ::2].flatten(1)[:, places].flatten())


@pytest.mark.parametrize(("normalise", "unit"), [("dense", False), ("never", False), ("always", True)])
def test_normalise__of_global_prediction(normalise, unit):
    strategy, view = ready(2, normalise=normalise)
    levels = [own[-1] for own in view.output.features.values()]
    task = view.method.task
    rows = strategy._rows(task, levels, view.batch.target, view.presence, view.generator("pmr positions"))
    length = rows.features[0].norm(dim=1)
    assert torch.allclose(length, torch.ones_like(length)) is unit


def test_unit_length__of_zero_is_zero_with_a_gradient_of_zero():
    features = torch.zeros(1, 3, requires_grad=True)
    unit_length(features).sum().backward()
    assert not unit_length(features).any()
    assert not features.grad.any()


# --- when nothing is to be done ---


@pytest.mark.parametrize(
    ("options", "epoch"),
    [({"alpha": 0.0, "mu": 0.0}, 0), ({"alpha": 0.0}, 10), ({"last_epoch": 4}, 5)],
)
def test_inactive__leaves_terms_and_prototypes_as_they_are(options, epoch):
    strategy, view = ready(2, epoch=epoch, **options)
    terms = view.method.losses(view.output, view.batch, view.clock)
    assert strategy.weigh(terms, view) is terms
    before = dict(strategy.prototypes)
    strategy.on_epoch_start(epoch_view(view.method, view.batch, epoch=epoch))
    assert strategy.prototypes == before


@pytest.mark.parametrize(("epoch", "there"), [(2, True), (3, False)])
def test_entropy__counts_in_the_first_epochs(epoch, there):
    strategy, view = ready(2, epoch=epoch, entropy_epochs=3)
    assert ("per/rgb" in weighed(strategy, view)) is there


def test_without_prototypes__as_in_a_dry_run__terms_stay():
    strategy, view = ready(2)
    strategy.prototypes = {}
    terms = view.method.losses(view.output, view.batch, view.clock)
    assert strategy.weigh(terms, view) is terms


@pytest.mark.parametrize("dense", [False, True])
def test_autocast__gives_finite_gradients_and_float32_terms(dense):
    torch.manual_seed(0)
    task = SegmentationTask(["a", "b", "c"]) if dense else None
    method = Method(tiny.blueprint(2, dense=dense, task=task))
    data = tiny.batch(2, dense=dense)
    strategy = PMR(fraction=1.0)
    strategy.on_epoch_start(epoch_view(method, data))
    with torch.autocast("cpu", torch.bfloat16):
        _, terms = released.step(method, strategy, data, tiny.mixed_presence(2))
    assert {term.value.dtype for term in terms.values()} == {torch.float32}
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_state__is_the_prototypes():
    strategy, _ = ready(2)
    fresh = PMR()
    fresh.load_state_dict(strategy.state_dict())
    assert fresh.prototypes.keys() == strategy.prototypes.keys()
    assert all(torch.equal(own, strategy.prototypes[name]) for name, own in fresh.prototypes.items())


def test_options__defaults_are_those_of_the_constructor():
    parameters = inspect.signature(PMR).parameters
    assert {name: parameters[name].default for name in PMROptions.model_fields} == PMROptions().model_dump()
