"""Every combination in one pass: equal to asking the model again for each, and without a trace in it."""

import pytest
import tiny_models as tiny
import torch
from brute_force import SETTINGS, brute_force, holed, settled

from robustmm import Batch, Encoder, Metric, MissingPolicy, Scaling
from robustmm.data.dataset import Modality
from robustmm.engine.evaluate import evaluate_combinations
from robustmm.masks import all_combinations
from robustmm.methods import probes
from robustmm.methods.method import Blueprint, Method
from robustmm.models.trunk import LateTrunk
from robustmm.plugin_manager import get_plugins
from robustmm.testing import tiny as published
from robustmm.testing.contract import build as example

CPU = torch.device("cpu")
REGISTRY = get_plugins().registry


class Recorder(Metric):
    """Keeps every logit and label, in order."""

    def __init__(self) -> None:
        self.logits: list[torch.Tensor] = []
        self.target: list[torch.Tensor] = []

    def update(self, logits, target) -> None:
        self.logits.append(logits.clone())
        self.target.append(target.clone())

    def merge(self, other) -> None:
        self.logits += other.logits
        self.target += other.target

    def compute(self) -> None:
        return None


def build(kind: str, name: str, **context):
    component = REGISTRY.get(kind, name)
    options = component.options()
    return component.build(**context, **{key: getattr(options, key) for key in type(options).model_fields})


def blueprint(count: int, *, fusion: str, policy: str, skip_absent: bool = True) -> Blueprint:
    """Parts from the registry around encoders with BatchNorm."""
    modalities = tuple(Modality(name, "vector", (5,), Scaling("none")) for name in tiny.NAMES[:count])

    def encoder() -> Encoder:
        layers = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 4))
        return Encoder(torch.nn.ModuleList([layers]), (4,), (0,))

    def trunk() -> LateTrunk:
        widths = {modality.name: (4,) for modality in modalities}
        encoders = {modality.name: encoder() for modality in modalities}
        fused, stand_in = build("fusion", fusion, channels=widths), build("missing_policy", policy, channels=widths)
        return LateTrunk(modalities, encoders, fused, stand_in, skip_absent=skip_absent)

    return Blueprint(modalities, tiny.TinyTask(), trunk, lambda channels: tiny.LinearHead(channels, tiny.CLASSES))


def batches(count: int, *, dense: bool = False) -> list[Batch]:
    return [holed(tiny.batch(count, size=size, dense=dense, seed=size), size) for size in (5, 3, 1)]


def record(method: Method, data: list[Batch], **options):
    return evaluate_combinations(method, data, CPU, extra=lambda: {"all": Recorder()}, **options)


def recorded(tally) -> tuple[torch.Tensor, torch.Tensor]:
    recorder = tally.extra["all"]
    return torch.cat(recorder.logits), torch.cat(recorder.target)


def assert_equals_brute_force(method: Method, data: list[Batch]) -> None:
    result = record(method, data)
    assert list(result.combinations) == all_combinations(method.modalities)
    for combination, tally in result.combinations.items():
        logits, target = recorded(tally)
        expected, labels = brute_force(method, data, combination)
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(target, labels)
        counts = method.task.metrics()
        counts.update(expected, labels)
        assert tally.metrics.compute() == pytest.approx(counts.compute(), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("policy", REGISTRY.names("missing_policy"))
@pytest.mark.parametrize("fusion", REGISTRY.names("fusion"))
def test_evaluate__equals_the_brute_force_loop(fusion, policy, count):
    torch.manual_seed(0)
    method = settled(Method(blueprint(count, fusion=fusion, policy=policy)), tiny.batch(count))
    assert_equals_brute_force(method, batches(count))


@pytest.mark.parametrize("policy", REGISTRY.names("missing_policy"))
def test_evaluate__does_not_depend_on_skipping_absent_rows(policy):
    results = []
    for skip_absent in (True, False):
        torch.manual_seed(0)
        parts = blueprint(3, fusion="concat", policy=policy, skip_absent=skip_absent)
        results.append(record(settled(Method(parts), tiny.batch(3)), batches(3)))
    for one, other in zip(*(result.combinations.values() for result in results), strict=True):
        torch.testing.assert_close(recorded(one)[0], recorded(other)[0])


@pytest.mark.parametrize(("component", "setting"), SETTINGS, ids=lambda one: getattr(one, "name", str(one)))
def test_evaluate__equals_the_brute_force_loop_for_each_method(component, setting):
    data = [holed(published.batch(setting, size=size, seed=size), size) for size in (5, 3, 1)]
    method = example(component, blueprint=published.blueprint(setting))
    assert_equals_brute_force(settled(method, published.batch(setting)), data)


class NeverRefuses(LateTrunk):
    """A trunk that has to encode anew for each combination."""

    def refuse(self, features, presence):
        return None


def test_evaluate__trunk_that_cannot_refuse_is_asked_for_each_combination():
    torch.manual_seed(0)
    method = settled(Method(tiny.blueprint(3)), tiny.batch(3))
    method.trunk.__class__ = NeverRefuses
    assert_equals_brute_force(method, batches(3))
    result = record(method, batches(3), unimodal=True)
    assert result.unimodal_source == "split"


@pytest.mark.parametrize("at_once", [1, 100, 1 << 30])
def test_evaluate__how_many_combinations_are_fused_at_once_changes_nothing(monkeypatch, at_once):
    torch.manual_seed(0)
    method = settled(Method(tiny.blueprint(4)), tiny.batch(4))
    before = record(method, batches(4))
    monkeypatch.setattr(probes, "FUSE_AT_ONCE", at_once)
    after = record(method, batches(4))
    for one, other in zip(before.combinations.values(), after.combinations.values(), strict=True):
        torch.testing.assert_close(recorded(one)[0], recorded(other)[0])
        assert (one.excluded, one.incomplete) == (other.excluded, other.incomplete)


def test_evaluate__counts_what_is_excluded_and_what_is_incomplete():
    method = Method(tiny.blueprint(2))
    data = tiny.batch(2, size=5)
    observed = torch.tensor([[True, True], [True, False], [True, False], [False, True], [True, True]])
    result = record(method, [Batch(data.inputs, observed, data.target, data.ids, data.index)])
    counts = {
        "+".join(combination): (tally.metrics.count, tally.excluded, tally.incomplete)
        for combination, tally in result.combinations.items()
    }
    assert counts == {"rgb": (4, 1, 0), "depth": (3, 2, 0), "rgb+depth": (5, 0, 3)}


def test_evaluate__combination_that_no_sample_has_is_empty():
    method, data = Method(tiny.blueprint(2)), tiny.batch(2, size=3)
    observed = torch.tensor([[True, False]] * 3)
    result = record(method, [Batch(data.inputs, observed, data.target, data.ids, data.index)])
    tally = result.combinations[("depth",)]
    assert (tally.metrics.count, tally.excluded, tally.incomplete) == (0, 3, 0)
    assert len(recorded(tally)[0]) == 0


def test_evaluate__without_data_counts_nothing():
    result = record(Method(tiny.blueprint(2)), [], unimodal=True)
    assert [tally.metrics.count for tally in result.combinations.values()] == [0, 0, 0]
    assert (result.unimodal, result.unimodal_source) == ({}, None)


def test_evaluate__takes_the_combinations_that_were_asked_for_in_their_order():
    method, data = settled(Method(tiny.blueprint(3)), tiny.batch(3)), batches(3)
    wanted = [("rgb", "depth", "ir"), ("ir",)]
    result = record(method, data, combinations=wanted)
    assert list(result.combinations) == wanted
    torch.testing.assert_close(recorded(result.combinations[("ir",)])[0], brute_force(method, data, ("ir",))[0])


def test_evaluate__says_how_far_it_is():
    done: list[int] = []
    record(Method(tiny.blueprint(2)), batches(2), progress=done.append)
    assert done == [5, 3, 1]


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("unimodal", [False, True])
def test_evaluate__leaves_modes_buffers_and_gradients_as_they_were(dense, unimodal):
    method = settled(Method(tiny.blueprint(2, dense=dense)), tiny.batch(2, dense=dense))
    frozen = next(part for part in method.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm))
    frozen.eval()
    modes = [part.training for part in method.modules()]
    before = {name: value.clone() for name, value in method.state_dict().items()}
    rng = torch.get_rng_state()
    record(method, batches(2, dense=dense), unimodal=unimodal)
    assert [part.training for part in method.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())
    assert torch.equal(torch.get_rng_state(), rng)


def test_evaluate__gives_modes_back_after_an_error():
    class Failing(Method):
        def readout(self, *arguments):
            raise RuntimeError("boom")

    method = Failing(tiny.blueprint(2)).train()
    with pytest.raises(RuntimeError, match="boom"):
        record(method, batches(2))
    assert method.training


def test_evaluate__training_goes_on_after_it():
    method, data = Method(tiny.blueprint(2)), tiny.batch(2)
    evaluate_combinations(method, [data], CPU, unimodal=True)
    tiny.step_view(method, data, data.observed)
    assert all(parameter.grad is not None for parameter in method.parameters())


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_evaluate__split_unimodal_logits_add_up_to_the_fused_ones(count):
    method, data = settled(Method(tiny.blueprint(count)), tiny.batch(count)), tiny.batch(count, seed=3)
    result = record(method, [data], unimodal=True)
    assert result.unimodal_source == "split"
    assert list(result.unimodal) == list(method.modalities)
    parts = [recorded(tally)[0] for tally in result.unimodal.values()]
    torch.testing.assert_close(sum(parts), recorded(result.combinations[method.modalities])[0])


def test_evaluate__unimodal_scores_leave_out_samples_without_the_modality():
    method, data = settled(Method(tiny.blueprint(3)), tiny.batch(3)), batches(3)
    result = record(method, data, unimodal=True)
    for column, (name, tally) in enumerate(result.unimodal.items()):
        there = sum(int(batch.observed[:, column].sum()) for batch in data)
        assert (tally.metrics.count, tally.excluded) == (there, 9 - there), name


def test_evaluate__masked_unimodal_logits_are_those_of_the_modality_alone():
    class Curved(tiny.LinearHead):
        def linear_part(self, fused, bias_share):
            return None

    parts = tiny.blueprint(3)
    curved = Blueprint(parts.modalities, parts.task, parts.make_trunk, lambda channels: Curved(channels, tiny.CLASSES))
    method = settled(Method(curved), tiny.batch(3))
    data = batches(3)
    result = record(method, data, unimodal=True)
    assert result.unimodal_source == "masked"
    for name, tally in result.unimodal.items():
        torch.testing.assert_close(recorded(tally)[0], brute_force(method, data, (name,))[0])


def test_evaluate__mixed_precision_reaches_the_metrics():
    method = settled(Method(tiny.blueprint(2)), tiny.batch(2))
    full = record(method, batches(2))
    half = record(method, batches(2), autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    for one, other in zip(full.combinations.values(), half.combinations.values(), strict=True):
        assert recorded(other)[0].dtype == torch.bfloat16
        torch.testing.assert_close(recorded(one)[0], recorded(other)[0].float(), atol=0.1, rtol=0.1)


class HalfInput(MissingPolicy):
    """Absent rows are encoded from one constant input, which is neither zero nor skipped."""

    encodes_absent = True
    stands_in = True

    def on_input(self, x, present, *, modality):
        return x.where(present.view(-1, 1), torch.full_like(x, 0.5))

    def on_feature(self, feature, present, *, modality, level):
        return feature


def test_evaluate__policy_with_inputs_of_its_own_equals_the_brute_force_loop():
    parts = tiny.blueprint(3)

    def trunk() -> LateTrunk:
        own = parts.make_trunk()
        return LateTrunk(parts.modalities, dict(own.encoders.items()), own.fusion, HalfInput())

    method = settled(Method(Blueprint(parts.modalities, parts.task, trunk, parts.make_head)), tiny.batch(3))
    assert_equals_brute_force(method, batches(3))
