"""CPM-Nets: losses against the authors' code, turns of codes and decoders, the search for the code of a new sample."""

import json
import socket
from pathlib import Path

import pytest
import tiny_models as tiny
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from robustmm_plugins.methods._latent_codes import (
    ClassMeans,
    Decoder,
    class_sums,
    find_codes,
    reconstruction_error,
    similarity_margin,
    similarity_to_others,
)
from robustmm_plugins.methods.cpm_nets import CPMNets

from robustmm import Batch, Blueprint, ClassificationTask, Clock, ConfigError, Method, Modality, Scaler, Scaling, total
from robustmm.distributed import average_gradients
from robustmm.engine.evaluate import evaluate_combinations
from robustmm.masks import all_combinations, presence_of
from robustmm.plugin_manager import get_plugins
from robustmm.testing.contract import through_checkpoint

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "cpm_nets.json").read_text(encoding="utf-8"))
SMALL = {"code_size": 2, "hidden": ()}


def blueprint(sizes: dict[str, int], samples: int, classes: int = 2) -> Blueprint:
    """Views as they come, without encoders: the method takes no part of a trunk but its scalers."""
    modalities = tuple(Modality(name, "vector", (size,), Scaling("none")) for name, size in sizes.items())

    class Scalers(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scalers = torch.nn.ModuleDict({modality.name: Scaler(modality) for modality in modalities})

    task = ClassificationTask([str(number) for number in range(classes)])
    return Blueprint(modalities, task, lambda *, fused: Scalers(), lambda channels: None, samples)


def golden_batch(case=GOLDEN["losses"]) -> Batch:
    views = [
        torch.tensor([view[row] for view in [case["views"][place]] for row in range(len(view))]) for place in (0, 1)
    ]
    labels = torch.tensor(case.get("labels_from_1", [1] * len(case["codes"]))) - 1
    presence = torch.tensor(case["presence"]).bool()
    ids = tuple(map(str, range(len(labels))))
    return Batch({"x1": views[0], "x2": views[1]}, presence, labels, ids, torch.arange(len(labels)))


def golden_method(**options) -> CPMNets:
    """The decoders and codes of the golden file."""
    case = GOLDEN["losses"]
    options = {"margin": "predicted", "reduction": "sum", **SMALL, **options}
    method = CPMNets(blueprint({"x1": 3, "x2": 2}, samples=5), **options).train()
    with torch.no_grad():
        method.table.copy_(torch.tensor(case["codes"]) / method.code_lr_factor)
        decoders = method.trunk.decoders.values()
        for decoder, weight, bias in zip(decoders, case["weights"], case["biases"], strict=True):
            decoder.layers()[0].weight.copy_(torch.tensor(weight).T)
            decoder.layers()[0].bias.copy_(torch.tensor(bias))
    return method


def terms_at(method: CPMNets, data: Batch, step: int):
    """Losses of step ``step`` of a run of 100 epochs of one step."""
    return method.losses(method.train_output(data, data.observed), data, Clock(step, step, 100, 1))


# --- losses ---------------------------------------------------------------------------------------------------------


def test_similarity_and_margin__worked_by_hand():
    codes, labels = torch.tensor([[1.0, 0.0], [0.8, 0.2], [0.0, 1.0], [0.6, 0.5]]), torch.tensor([0, 0, 1, 1])
    similarity = similarity_to_others(codes, labels, *class_sums(codes, labels, 2))
    torch.testing.assert_close(similarity, torch.tensor([[0.8, 0.3], [0.8, 0.39], [0.1, 0.5], [0.59, 0.5]]))
    torch.testing.assert_close(
        similarity_margin(similarity, labels, form="predicted"), torch.tensor([0.0, 0.0, 0.0, 1.09])
    )
    torch.testing.assert_close(similarity_margin(similarity, labels, form="all"), torch.tensor([0.5, 0.59, 0.6, 1.09]))


def test_similarity__equals_the_matrix_of_all_pairs():
    codes, labels = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
    gram = (codes @ codes.T).fill_diagonal_(0)
    expected = torch.stack(
        [gram[:, labels == c].sum(1) / ((labels == c).sum() - (labels == c).long()) for c in range(3)], dim=1
    )
    found = similarity_to_others(codes, labels, *class_sums(codes, labels, 3))
    torch.testing.assert_close(found, expected)


def test_similarity__class_of_one_sample_is_0():
    codes, labels = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1])
    similarity = similarity_to_others(codes, labels, *class_sums(codes, labels, 3))
    assert similarity.tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_margin__all_is_never_below_predicted():
    similarity, labels = torch.randn(40, 5, generator=torch.Generator().manual_seed(1)), torch.arange(40) % 5
    every, one = (similarity_margin(similarity, labels, form=form) for form in ("all", "predicted"))
    assert (every >= one).all()
    assert (one[similarity.argmax(dim=1) == labels] == 0).all()


def test_reconstruction__worked_by_hand():
    decoder = Decoder(2, (), 3, "none")
    with torch.no_grad():
        decoder.layers()[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    for shown, value, gradient in ((True, 1.5, [-3.0, -1.0]), (False, 0.0, [0.0, 0.0])):
        code = torch.tensor([[0.5, 0.5]], requires_grad=True)
        error = reconstruction_error(decoder(code), torch.tensor([[1.0, 0.0, 2.0]]), torch.full((1, 3), shown))
        error.sum().backward()
        assert error.tolist() == [value]
        assert code.grad.tolist() == [gradient]


def test_reconstruction__nan_in_an_absent_view_leaves_no_trace():
    made = torch.ones(1, 2, requires_grad=True)
    reconstruction_error(made, torch.tensor([[0.0, torch.nan]]), torch.tensor([[True, False]])).sum().backward()
    assert made.grad.tolist() == [[2.0, 0.0]]


def test_golden__losses_and_gradients_of_the_authors_code():
    case, method, data = GOLDEN["losses"], golden_method(), golden_batch()
    for step, names in ((0, ["reconstruction"]), (5, ["reconstruction", "classification"])):
        method.zero_grad()
        terms = terms_at(method, data, step)
        assert list(terms) == names
        assert terms["reconstruction"].value.item() == pytest.approx(case["reconstruction_sum"], rel=1e-6)
        if step == 0:
            terms["reconstruction"].value.backward()
            assert method.table.grad is None or not method.table.grad.any()
            for place, decoder in enumerate(method.trunk.decoders.values()):
                weight, bias = decoder.layers()[0].weight.grad, decoder.layers()[0].bias.grad
                expected = torch.tensor(case["reconstruction_gradient_weights"][place]).T
                torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-5)
                torch.testing.assert_close(bias, torch.tensor(case["reconstruction_gradient_biases"][place]))
            continue
        assert terms["classification"].value.item() == pytest.approx(case["classification_sum"], rel=1e-6)
        for name, term in terms.items():
            (gradient,) = torch.autograd.grad(term.value, method.table, retain_graph=True)
            torch.testing.assert_close(gradient, torch.tensor(case[f"{name}_gradient_codes"]), rtol=1e-5, atol=1e-5)
        total(terms).backward()
        assert all(parameter.grad is None or not parameter.grad.any() for parameter in method.trunk.parameters())


@pytest.mark.parametrize("factor", [1.0, 4.0])
def test_golden__three_steps_of_adam_on_each(factor):
    case = GOLDEN["training"]
    method, data = golden_method(alternate=3, code_lr_factor=factor), golden_batch()
    decoders = torch.optim.Adam(method.trunk.parameters(), lr=case["decoder_learning_rate"])
    codes = torch.optim.Adam([method.table], lr=case["code_learning_rate"] / factor)
    for step in range(6):
        optimizer = codes if step >= 3 else decoders
        method.zero_grad()
        total(terms_at(method, data, step)).backward()
        optimizer.step()
    torch.testing.assert_close(method.codes, torch.tensor(case["codes"]), rtol=1e-4, atol=1e-5)
    for place, decoder in enumerate(method.trunk.decoders.values()):
        weight = torch.tensor(case["weights"][place]).T
        torch.testing.assert_close(decoder.layers()[0].weight, weight, rtol=1e-4, atol=1e-5)
    terms = terms_at(method, data, 5)
    assert terms["reconstruction"].value.item() == pytest.approx(case["reconstruction_sum"], rel=1e-4)
    assert terms["classification"].value.item() == pytest.approx(case["classification_sum"], rel=1e-4)


def test_golden__search_moves_test_codes_as_the_authors_do():
    """The release begins at a drawn code; beginning there through the bias makes the search the same."""
    case, after = GOLDEN["test_codes"], GOLDEN["training"]
    start = torch.tensor(case["codes"])
    views = torch.cat([torch.tensor(view) for view in case["views"]], dim=1)
    shown = torch.tensor(case["presence"]).bool().repeat_interleave(torch.tensor([3, 2]), dim=1)
    weight = torch.cat([torch.tensor(one) for one in after["weights"]], dim=1)  # (D, F)
    bias = torch.cat([torch.tensor(one) for one in after["biases"]])
    moved = find_codes(lambda h: (h + start) @ weight + bias, views, shown, size=2, steps=3, lr=0.01)
    torch.testing.assert_close(start + moved, torch.tensor(after["test_codes"]), rtol=1e-4, atol=1e-5)


def test_golden__prediction_by_mean_codes():
    case, head = GOLDEN["prediction"], ClassMeans(2, 2)
    head.set(*class_sums(torch.tensor(case["train_codes"]), torch.tensor(case["labels_from_1"]) - 1, 2))
    scores = head([torch.tensor(case["codes"])], ())
    torch.testing.assert_close(scores, torch.tensor(case["scores"]))
    assert (scores.argmax(dim=1) + 1).tolist() == case["predicted_from_1"]


# --- training -------------------------------------------------------------------------------------------------------


def trained(method: CPMNets, data: Batch, steps: int = 40, lr: float = 0.05) -> CPMNets:
    optimizer = torch.optim.Adam(method.parameters(), lr=lr)
    for step in range(steps):
        method.zero_grad(set_to_none=True)
        at = Clock(step, step, steps, 1)
        total(method.losses(method.train_output(data, data.observed), data, at)).backward()
        optimizer.step()
        method.on_epoch_end(None, at)
    return method


def tiny_set(samples: int = 24, seed: int = 0) -> Batch:
    """Two views of three classes, some of them missing."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(samples) % 3
    centres = torch.randn(3, 9, generator=generator)
    values = centres[target] + 0.3 * torch.randn(samples, 9, generator=generator)
    observed = torch.ones(samples, 2, dtype=torch.bool)
    observed[::4, 0] = False
    observed[1::4, 1] = False
    inputs = {"x1": values[:, :5] * observed[:, :1], "x2": values[:, 5:] * observed[:, 1:]}
    return Batch(inputs, observed, target, tuple(map(str, range(samples))), torch.arange(samples))


def tiny_method(samples: int = 24, **options) -> CPMNets:
    torch.manual_seed(0)
    options = {"code_size": 6, "hidden": (7,), "search_lr": 0.05, **options}
    return CPMNets(blueprint({"x1": 5, "x2": 4}, samples, classes=3), **options).train()


def test_training__learns_classes_from_incomplete_views():
    data = tiny_set()
    method = trained(tiny_method(), data, steps=100).eval()
    logits = method(data.inputs, data.observed).logits  # codes are found anew, without labels
    assert float((logits.argmax(dim=1) == data.target).float().mean()) > 0.9


def test_turns__decoders_first_then_codes():
    data = tiny_set()
    for step, moves in ((0, "decoders"), (4, "decoders"), (5, "codes"), (9, "codes"), (10, "decoders")):
        method = tiny_method()
        optimizer = torch.optim.Adam(method.parameters(), lr=0.1)
        before = {name: value.clone() for name, value in method.named_parameters()}
        total(terms_at(method, data, step)).backward()
        optimizer.step()
        moved = {name.split(".")[0] for name, value in method.named_parameters() if not value.equal(before[name])}
        assert moved == ({"table"} if moves == "codes" else {"trunk"}), step


def test_turns__last_epochs_retune_decoders():
    data, method = tiny_set(), tiny_method(retune_epochs=3)
    output = method.train_output(data, data.observed)
    names = [list(method.losses(output, data, Clock(epoch, epoch, 10, 1))) for epoch in (5, 6, 7, 9)]
    assert names == [["reconstruction", "classification"]] * 2 + [["reconstruction"]] * 2


def test_losses__do_not_depend_on_the_order_of_samples():
    data, order = tiny_set(), torch.randperm(24, generator=torch.Generator().manual_seed(3))
    shuffled = Batch(
        {name: x[order] for name, x in data.inputs.items()},
        data.observed[order],
        data.target[order],
        tuple(data.ids[row] for row in order.tolist()),
        data.index[order],
    )
    for step in (0, 5):
        first, second = terms_at(tiny_method(), data, step), terms_at(tiny_method(), shuffled, step)
        for name, term in first.items():
            torch.testing.assert_close(term.value, second[name].value)


def test_losses__view_that_nobody_has_changes_nothing():
    data = tiny_set()
    method = tiny_method()
    wider = CPMNets(blueprint({"x1": 5, "x2": 4, "x3": 2}, 24, classes=3), code_size=6, hidden=(7,)).train()
    wider.load_state_dict(method.state_dict(), strict=False)
    inputs = {**data.inputs, "x3": torch.randn(24, 2)}
    observed = torch.cat([data.observed, torch.zeros(24, 1, dtype=torch.bool)], dim=1)
    more = Batch(inputs, observed, data.target, data.ids, data.index)
    for step in (0, 5):
        for name, term in terms_at(method, data, step).items():
            torch.testing.assert_close(terms_at(wider, more, step)[name].value, term.value)


def test_weight_0__is_reconstruction_alone():
    assert list(terms_at(tiny_method(classification_weight=0.0), tiny_set(), 5)) == ["reconstruction"]


def test_reduction__sum_is_mean_times_samples():
    mean, summed = (terms_at(tiny_method(reduction=how), tiny_set(), 5) for how in ("mean", "sum"))
    for name in mean:
        torch.testing.assert_close(24 * mean[name].value, summed[name].value)


def test_labels__are_met_batch_by_batch():
    data, method = tiny_set(), tiny_method()
    half = torch.arange(0, 24, 2)
    method.train_output(_rows(data, half), data.observed[half])
    assert method.labels[half].equal(data.target[half])
    assert (method.labels[1::2] == -1).all()
    method.on_epoch_end(None, tiny.clock())
    assert method.head.counts.sum() == 12
    torch.testing.assert_close(method.head.sums, class_sums(method.codes[half], data.target[half], 3)[0])


def test_accumulation__halves_of_the_part_add_up_to_the_whole():
    data, halves = tiny_set(), torch.arange(24).chunk(2)
    method = tiny_method()
    method.train_output(data, data.observed)  # every label is known
    whole = torch.autograd.grad(total(terms_at(method, data, 5)), method.table)[0]
    parts = [torch.autograd.grad(total(terms_at(method, _rows(data, rows), 5)), method.table)[0] for rows in halves]
    torch.testing.assert_close((parts[0] + parts[1]) / 2, whole)


def test_checkpoint__goes_on_as_if_nothing_had_happened():
    data = tiny_set()
    first = trained(tiny_method(), data, steps=7)
    second = tiny_method()
    second.load_state_dict(through_checkpoint(first.state_dict()))
    assert second.labels.equal(data.target)
    for method in (first, second):
        trained(method, data, steps=7)
    for name, value in first.state_dict().items():
        assert second.state_dict()[name].equal(value), name


def test_autocast__terms_and_codes_stay_float32():
    data, method = tiny_set(), tiny_method()
    plain = terms_at(method, data, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = terms_at(method, data, 5)
        codes = method(data.inputs, data.observed).fused[0]
    for name, term in mixed.items():
        assert term.value.dtype == torch.float32
        torch.testing.assert_close(term.value, plain[name].value)
    assert codes.dtype == torch.float32
    total(mixed).backward()
    assert method.table.grad.isfinite().all()


def _rows(data: Batch, rows: torch.Tensor) -> Batch:
    inputs = {name: x[rows] for name, x in data.inputs.items()}
    ids = tuple(data.ids[row] for row in rows.tolist())
    return Batch(inputs, data.observed[rows], data.target[rows], ids, data.index[rows])


# --- prediction -----------------------------------------------------------------------------------------------------


def test_search__more_steps_never_reconstruct_worse():
    data, method = tiny_set(), trained(tiny_method(), tiny_set())
    views, shown = method.trunk.side_by_side(method.trunk.views(data.inputs, data.observed), data.observed)
    errors = []
    for steps in (1, 10, 100, 1000):
        codes = find_codes(method.trunk.reconstruct, views, shown, size=6, steps=steps, lr=0.01)
        errors.append(reconstruction_error(method.trunk.reconstruct(codes), views, shown).sum().item())
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("options", [{}, {"activation": "relu"}, {"output_dropout": 0.2}])
def test_code__depends_on_own_views_alone(options):
    data, method = tiny_set(), trained(tiny_method(**options), tiny_set()).eval()
    whole = method(data.inputs, data.observed)
    few = _rows(data, torch.tensor([3, 9]))
    torch.testing.assert_close(method(few.inputs, few.observed).logits, whole.logits[[3, 9]])
    torch.testing.assert_close(method(data.inputs, data.observed).logits, whole.logits, rtol=0, atol=0)


@pytest.mark.parametrize("activation", ["none", "relu"])
def test_decoders__frozen_are_the_same_map_without_weights_gradient(activation):
    trunk = tiny_method(activation=activation, hidden=(5, 4)).trunk
    with torch.no_grad():
        for decoder in trunk.decoders.values():
            for layer in decoder.layers():
                layer.bias.normal_()
    codes = torch.randn(6, 6, requires_grad=True)
    frozen = trunk.reconstruct(codes, frozen=True)
    torch.testing.assert_close(frozen, trunk.reconstruct(codes))
    frozen.square().sum().backward()
    assert codes.grad.any()
    assert all(parameter.grad is None for parameter in trunk.parameters())


def test_search__works_in_inference_mode_and_leaves_weights_alone():
    data, method = tiny_set(), trained(tiny_method(), tiny_set()).eval()
    expected = method(data.inputs, data.observed).logits
    before = {name: value.clone() for name, value in method.state_dict().items()}
    with torch.inference_mode():
        copies = {name: x.clone() for name, x in data.inputs.items()}
        assert copies["x1"].is_inference()
        assert method(copies, data.observed).logits.equal(expected)
    assert all(value.equal(before[name]) for name, value in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.trunk.parameters())


def test_sample_without_a_view__has_code_0():
    data, method = tiny_set(), trained(tiny_method(), tiny_set()).eval()
    nothing = torch.zeros_like(data.observed)
    output = method(data.inputs, nothing)
    assert not output.fused[0].any()
    assert not output.logits.any()


def test_evaluation__every_combination_without_encoding_again():
    data, method = tiny_set(), trained(tiny_method(), tiny_set())
    complete = Batch(data.inputs, torch.ones(24, 2).bool(), data.target, data.ids, data.index)
    found = evaluate_combinations(method, [complete], torch.device("cpu"))
    method.eval()
    for combination in all_combinations(("x1", "x2")):
        shown = presence_of(combination, ("x1", "x2")).expand(24, -1)
        right = (method(data.inputs, shown).logits.argmax(dim=1) == data.target).float().mean()
        assert found.combinations[combination].compute()["accuracy"] == pytest.approx(float(right))


def test_deployed__has_no_table_and_predicts_alike():
    data, method = tiny_set(), trained(tiny_method(), tiny_set()).eval()
    deployed = method.deployable()
    assert type(deployed) is Method
    assert [name for name, _ in deployed.named_parameters() if "decoders" not in name] == []
    assert deployed(data.inputs, data.observed).logits.equal(method(data.inputs, data.observed).logits)


# --- what is refused, several processes -----------------------------------------------------------------------------


def test_pictures__are_refused_with_a_repair():
    modalities = (Modality("x1", "vector", (5,)), Modality("photo", "image", (3, 8, 8)))
    given = Blueprint(modalities, ClassificationTask(["a", "b"]), lambda **_: None, lambda channels: None, 4)
    with pytest.raises(ConfigError, match=r"reconstructs vectors, modality 'photo' is of kind image: give features"):
        CPMNets(given)


def test_component__needs_classification_and_no_balancer():
    component = get_plugins().registry.get("method", "cpm_nets")
    assert {"task:classification", "balancer:none"} <= component.requires


def processed(rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """A short run in which this process has some rows of the part."""
    data, method = _rows(tiny_set(), rows), tiny_method()
    optimizer = torch.optim.Adam(method.parameters(), lr=0.05)
    for step in range(12):
        method.zero_grad(set_to_none=True)
        at = Clock(step, step, 12, 1)
        total(method.losses(method.train_output(data, data.observed), data, at)).backward()
        average_gradients(method.parameters())
        optimizer.step()
    method.on_epoch_end(None, at)
    return {name: value.detach().clone() for name, value in method.state_dict().items()}


def on_one_of_two(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        torch.save(processed(torch.arange(24).chunk(2)[rank]), folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_two_processes__equal_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(on_one_of_two, (port, tmp_path), nprocs=2)
    expected = processed(torch.arange(24))
    for rank in range(2):
        for name, value in torch.load(tmp_path / f"{rank}.pt").items():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5, msg=name)
