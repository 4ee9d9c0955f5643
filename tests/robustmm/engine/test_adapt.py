"""Streams of the test part: as plain evaluation where nothing is learnt, apart from one another, without a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import adapted
import pytest
import tiny_models as tiny
import torch
from torch import nn

from robustmm import Adapter, Batch, Method, Metric, Output, Predict, RobustmmError
from robustmm.adaptation.stream import adapting
from robustmm.engine.adapt import evaluate_adapted
from robustmm.engine.evaluate import Evaluation, evaluate_combinations
from robustmm.masks import all_combinations

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:adapter read")


class Recorder(Metric):
    """Keeps every logit and label, in order."""

    def __init__(self) -> None:
        self.logits: list[torch.Tensor] = []
        self.target: list[torch.Tensor] = []

    def update(self, logits: torch.Tensor, target: torch.Tensor) -> None:
        self.logits.append(logits.clone())
        self.target.append(target.clone())

    def merge(self, other: Any) -> None:
        self.logits += other.logits
        self.target += other.target

    def compute(self) -> None:
        return None


def extra() -> dict[str, Metric]:
    return {"all": Recorder()}


def read(**options: Any) -> Callable[[], Adapter]:
    return lambda: adapted.build("adapter", "read", **options)


def logits_of(result: Evaluation) -> dict[tuple[str, ...], torch.Tensor]:
    return {combo: torch.cat(tally.extra["all"].logits) for combo, tally in result.combinations.items()}


def run(method: Method, data: list[Batch], make_adapter: Callable[[], Adapter], **options: Any) -> Evaluation:
    return evaluate_adapted(method, data, CPU, make_adapter=make_adapter, extra=extra, **options)


def plain(method: Method, data: list[Batch], combination: tuple[str, ...]) -> Evaluation:
    return evaluate_combinations(method, data, CPU, combinations=[combination], extra=extra)


def same(one: dict[tuple[str, ...], torch.Tensor], other: dict[tuple[str, ...], torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[combo], other[combo]) for combo in one)


# Where nothing is learnt


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("policy", ["zero_feature", "zero_input", "learned_token"])
@pytest.mark.parametrize("fusion", ["attention", "gated", "film", "sum"])
def test_lr_0__equals_plain_evaluation_bit_for_bit(fusion: str, policy: str, dense: bool) -> None:
    method = adapted.model(fusion=fusion, policy=policy, dense=dense)
    data = adapted.batches(dense=dense)
    result = run(method, data, read(lr=0.0))
    for combination, logits in logits_of(result).items():
        expected = plain(method, data, combination)
        assert torch.equal(logits, logits_of(expected)[combination])
        tally, other = result.combinations[combination], expected.combinations[combination]
        assert torch.equal(tally.metrics.confusion, other.metrics.confusion)
        assert tally.metrics.count == other.metrics.count


def test_lr_0__counts_and_rows_as_plain_evaluation_where_data_have_holes() -> None:
    method, data = adapted.model(3), adapted.batches(3, holes=True)
    result = run(method, data, read(lr=0.0))
    expected = evaluate_combinations(method, data, CPU, extra=extra)
    assert list(result.combinations) == list(expected.combinations)
    for combination, tally in result.combinations.items():
        other = expected.combinations[combination]
        assert (tally.excluded, tally.incomplete) == (other.excluded, other.incomplete)
        recorded, wanted = tally.extra["all"], other.extra["all"]
        assert torch.equal(torch.cat(recorded.target), torch.cat(wanted.target))
        torch.testing.assert_close(torch.cat(recorded.logits), torch.cat(wanted.logits), rtol=1e-5, atol=1e-6)
    assert sum(tally.excluded for tally in result.combinations.values()) > 0
    assert sum(tally.incomplete for tally in result.combinations.values()) > 0


def test_adapter_as_it_stands__is_the_trained_model() -> None:
    method, data = adapted.model(), adapted.batches()
    for combination, logits in logits_of(run(method, data, Adapter)).items():
        assert torch.equal(logits, logits_of(plain(method, data, combination))[combination])


# Streams


def test_excluded_samples__are_not_adapted_to() -> None:
    """A stream with holes equals the stream of the samples that have something of the combination."""
    method, data = adapted.model(3), adapted.batches(3, holes=True)
    column = method.modalities.index("depth")
    own = []
    for batch in data:
        rows = batch.observed[:, column].nonzero().squeeze(1)
        inputs = {name: value[rows] for name, value in batch.inputs.items()}
        ids = tuple(batch.ids[row] for row in rows.tolist())
        own.append(Batch(inputs, batch.observed[rows], batch.target[rows], ids, batch.index[rows]))
    alone = [("depth",)]
    first = logits_of(run(method, data, read(lr=0.05), combinations=alone))
    second = logits_of(run(method, own, read(lr=0.05), combinations=alone))
    torch.testing.assert_close(first[("depth",)], second[("depth",)], rtol=1e-4, atol=1e-5)


def test_batch_without_the_modality__is_passed_over() -> None:
    method, data = adapted.model(), adapted.batches()
    data[1].observed[:, 0] = False
    result = run(method, data, read(lr=0.05), combinations=[("rgb",)])
    tally = result.combinations[("rgb",)]
    assert tally.excluded == len(data[1])
    assert tally.metrics.count == len(data[0]) + len(data[2])
    gone = logits_of(run(method, [data[0], data[2]], read(lr=0.05), combinations=[("rgb",)]))
    assert same(logits_of(result), gone)


def test_adaptation__goes_on_from_batch_to_batch_and_starts_anew_for_each_combination() -> None:
    method, data = adapted.model(), adapted.batches()
    twice = [data[0], data[0]]
    result = run(method, twice, read(lr=0.05))
    for combination, logits in logits_of(result).items():
        first, second = logits.split(len(data[0]))
        assert not torch.equal(first, second)
        with adapting(method, read(lr=0.05)()) as predict:
            shown = tiny.shown(combination, 2, len(data[0]))
            assert torch.equal(predict(data[0].inputs, shown).logits, first)
            assert torch.equal(predict(data[0].inputs, shown).logits, second)


def test_reset_batch__forgets_after_each_batch() -> None:
    method, data = adapted.model(), adapted.batches()
    logits = logits_of(run(method, [data[1], data[0], data[0]], read(lr=0.05, reset="batch")))
    never = logits_of(run(method, [data[0]], read(lr=0.05)))
    for combination, own in logits.items():
        _, first, second = own.split([len(data[1]), len(data[0]), len(data[0])])
        assert torch.equal(first, second)
        assert torch.equal(first, never[combination])


@pytest.mark.parametrize("dense", [False, True])
def test_combinations__do_not_depend_on_their_order_or_company(dense: bool) -> None:
    method, data = adapted.model(dense=dense), adapted.batches(dense=dense)
    order = all_combinations(method.modalities)
    together = logits_of(run(method, data, read(lr=0.05), combinations=order))
    assert same(logits_of(run(method, data, read(lr=0.05), combinations=order[::-1])), dict(reversed(together.items())))
    for combination in order:
        alone = logits_of(run(method, data, read(lr=0.05), combinations=[combination]))
        assert torch.equal(alone[combination], together[combination])


def test_two_evaluations__give_the_same_bits() -> None:
    method, data = adapted.model(3), adapted.batches(3, holes=True)
    first = logits_of(run(method, data, read(lr=0.05)))
    torch.rand(5)
    assert same(first, logits_of(run(method, data, read(lr=0.05))))


def test_labels__have_no_influence() -> None:
    method, data = adapted.model(), adapted.batches()
    other = [Batch(one.inputs, one.observed, (one.target + 1) % 3, one.ids, one.index) for one in data]
    assert same(logits_of(run(method, data, read(lr=0.05))), logits_of(run(method, other, read(lr=0.05))))


def test_processes__share_the_combinations(monkeypatch: pytest.MonkeyPatch) -> None:
    method, data = adapted.model(3), adapted.batches(3)
    whole = run(method, data, read(lr=0.05))
    monkeypatch.setattr("robustmm.distributed.world_size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr("robustmm.distributed.rank", lambda rank=rank: rank)
        shares.append(run(method, data, read(lr=0.05)))
    monkeypatch.setattr("robustmm.distributed.gather_objects", lambda item: [item, shares[1]])
    monkeypatch.setattr("robustmm.distributed.rank", lambda: 0)
    merged = run(method, data, read(lr=0.05))
    for combination, tally in merged.combinations.items():
        assert torch.equal(tally.metrics.confusion, whole.combinations[combination].metrics.confusion)
        assert tally.metrics.count == whole.combinations[combination].metrics.count
    counts = [{combo for combo, tally in share.combinations.items() if tally.metrics.count} for share in shares]
    assert not counts[0] & counts[1]


# The model afterwards


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("fusion", ["attention", "gated"])
def test_model__is_bit_for_bit_as_before(fusion: str, dense: bool) -> None:
    method = adapted.model(fusion=fusion, dense=dense)
    method.head.eval()
    first = next(method.trunk.parameters())
    first.requires_grad_(False)
    last = next(method.head.parameters())
    last.grad = torch.ones_like(last)
    before, modes = adapted.state(method), [part.training for part in method.modules()]
    run(method, adapted.batches(dense=dense), read(lr=0.05))
    after = adapted.state(method)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [part.training for part in method.modules()] == modes
    assert [one for one in method.parameters() if not one.requires_grad] == [first]
    assert [one for one in method.parameters() if one.grad is not None] == [last]
    assert torch.equal(last.grad, torch.ones_like(last))


def test_model__is_as_before_after_an_error() -> None:
    class Breaks(Adapter):
        def adapt(self, predict: Predict) -> Output:
            with torch.no_grad():
                for parameter in self.chosen:
                    parameter.add_(1)
            raise RuntimeError("on purpose")

        def prepare(self, parameters: Any) -> None:
            self.chosen = parameters

    method = adapted.model()
    before = adapted.state(method)
    with pytest.raises(RuntimeError, match="on purpose"):
        run(method, adapted.batches(), Breaks)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert all(part.training for part in method.modules())
    assert all(parameter.requires_grad for parameter in method.parameters())


# What is adapted, and how


def test_encoders__run_once_per_batch_without_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    method, data = adapted.model(), adapted.batches()
    calls = []
    for encoder in method.trunk.encoders.values():
        encoder.register_forward_hook(lambda module, given, levels: calls.append(levels[0].requires_grad))
    run(method, data, read(lr=0.05, steps=2))
    assert calls == [False] * len(data) * 2


def test_trunk_that_cannot_fuse_anew__is_run_from_its_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    method, data = adapted.model(), adapted.batches(holes=True)
    expected = logits_of(run(method, data, read(lr=0.05)))
    monkeypatch.setattr(type(method.trunk), "refuse", lambda self, features, presence: None)
    for combination, logits in logits_of(run(method, data, read(lr=0.05))).items():
        torch.testing.assert_close(logits, expected[combination], rtol=1e-4, atol=1e-5)


class OnEncoders(Adapter):
    """Descends the mean of the logits by the weights of the encoders."""

    def parameters(self, method: Method) -> list[nn.Parameter]:
        return list(method.trunk.encoders.parameters())

    def prepare(self, parameters: Any) -> None:
        self.optimizer = torch.optim.SGD(parameters, lr=0.5)

    def adapt(self, predict: Predict) -> Output:
        predict().logits.mean().backward()
        self.optimizer.step()
        with torch.no_grad():
            return predict()


def test_adapter_of_encoders__sees_its_own_effect_and_keeps_statistics() -> None:
    method, data = adapted.model(), adapted.batches()
    before = adapted.state(method)
    logits = logits_of(run(method, data, OnEncoders))
    for combination, own in logits.items():
        assert own.mean() < logits_of(plain(method, data, combination))[combination].mean()
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


@contextmanager
def bfloat16() -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield


def test_autocast__an_update_reaches_the_prediction_of_its_own_batch() -> None:
    """Autocast keeps copies of weights; the prediction must be that of the weights after the update."""
    method, data = adapted.model(), adapted.batches()
    batch = data[0]
    seen: dict[str, torch.Tensor] = {}

    class Watched(type(read()())):  # type: ignore[misc]  # READ, to look at its weights
        def adapt(self, predict: Predict) -> Output:
            output = super().adapt(predict)
            seen.update(adapted.state(method))
            return output

    options = get_options(lr=0.5)
    with adapting(method, Watched(**options), autocast=bfloat16) as predict:
        logits = predict(batch.inputs, batch.observed).logits
    assert logits.dtype is torch.bfloat16
    changed = adapted.model()
    changed.load_state_dict(seen)
    with torch.no_grad(), bfloat16():
        expected = changed.eval()(batch.inputs, batch.observed).logits
        before = method.eval()(batch.inputs, batch.observed).logits
    assert torch.equal(logits, expected)
    assert not torch.equal(logits, before)


def get_options(**changes: Any) -> dict[str, Any]:
    one = read(**changes)()
    return {name: getattr(one, name) for name in ("lr", "steps", "gamma", "balance_weight", "balance", "reset")}


def test_autocast__active_around_the_stream_changes_nothing() -> None:
    method, data = adapted.model(), adapted.batches()
    inside = logits_of(run(method, data, read(lr=0.5), autocast=bfloat16))
    with bfloat16():
        around = logits_of(run(method, data, read(lr=0.5), autocast=bfloat16))
    assert same(inside, around)


def test_autocast__lr_0_equals_plain_evaluation() -> None:
    method, data = adapted.model(), adapted.batches()
    logits = logits_of(run(method, data, read(lr=0.0), autocast=bfloat16))
    for combination, own in logits.items():
        expected = evaluate_combinations(method, data, CPU, combinations=[combination], extra=extra, autocast=bfloat16)
        assert torch.equal(own, logits_of(expected)[combination])


# What is wrong


def test_fusion_without_parameters__is_named_with_the_repair() -> None:
    method = adapted.model(fusion="concat")
    with pytest.raises(RobustmmError) as caught:
        run(method, adapted.batches(), read())
    assert str(caught.value) == (
        "adapter Read finds no parameter to adapt in Method with LateTrunk: its fusion offers none; train with a "
        "fusion that has parameters, such as attention, gated, film or sum"
    )


def test_adapting__refuses_a_sample_without_modality() -> None:
    method, (batch, *_) = adapted.model(), adapted.batches()
    shown = batch.observed.clone()
    shown[2] = False
    with (
        adapting(method, read()()) as predict,
        pytest.raises(RobustmmError, match="a sample without any modality can neither be predicted nor adapted to"),
    ):
        predict(batch.inputs, shown)
