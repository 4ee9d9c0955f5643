"""Diagnosing and re-learning: purity, pulls, and when encoders are pulled."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_models as tiny
import torch
from pydantic import ValidationError
from robustmm_plugins.balancing.diagnosing_relearning import (
    DiagnosingRelearning,
    DiagnosingRelearningOptions,
    Rows,
    cluster_purity,
    estimate_norms,
    feature_rows,
    gathered,
    pull,
    pull_of,
    purity,
)
from torch import nn

from robustmm import Balancer, EpochView, Method, RunFailed, SegmentationTask
from robustmm.testing.contract import through_checkpoint
from robustmm.testing.runs import STEPS_PER_EPOCH, Run, mixed
from robustmm.testing.tiny import Setting
from robustmm.types import Batch

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "diagnosing_relearning.json").read_text())


def ints(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


# --- purity ---


@pytest.mark.parametrize("case", GOLDEN["purity"]["cases"], ids=lambda case: "".join(map(str, case["cluster"])))
def test_purity__equals_the_released_one(case):
    assert purity(ints(case["label"]), ints(case["cluster"])) == pytest.approx(case["purity"])


def test_purity__does_not_depend_on_names_of_clusters_and_labels_and_order():
    generator = torch.Generator().manual_seed(0)
    label, cluster = torch.randint(4, (2, 60), generator=generator)
    expected = purity(label, cluster)
    renamed = torch.randperm(4, generator=generator)
    order = torch.randperm(60, generator=generator)
    assert purity(renamed[label] + 3, renamed.flip(0)[cluster]) == expected
    assert purity(label[order], cluster[order]) == expected
    assert expected >= label.bincount().max().item() / 60
    assert purity(label, label) == 1
    assert purity(label, torch.zeros(60).long()) == pytest.approx(label.bincount().max().item() / 60)


def golden_rows(part, name) -> Rows:
    own = GOLDEN["diagnosis"][part]
    return Rows(torch.tensor(own[name]), ints(own["label"]))


@pytest.mark.parametrize("name", ["audio", "visual"])
def test_diagnosis__equals_the_released_one_from_features_to_pull(name):
    own = GOLDEN["diagnosis"]
    found = [cluster_purity(golden_rows(part, name), 3) for part in ("train", "held_out")]
    assert found == pytest.approx([own["purity"][f"{part}_{name}"] for part in ("train", "held_out")])
    assert pull_of(*found, own["lambda"], "absolute") == pytest.approx(own["alpha"][name])
    signed = own["alpha"][name] if found[0] > found[1] else 0.0
    assert pull_of(*found, own["lambda"]) == pytest.approx(signed)


def test_diagnosis__worked_example():
    alpha = pull_of(5 / 6, 4 / 6, 3.0)
    assert alpha == pytest.approx(0.462117, abs=1e-6)
    parameter = nn.Parameter(torch.tensor([1.0]))
    pull([parameter], [torch.tensor([0.2])], alpha)
    assert parameter.item() == pytest.approx(0.630306, abs=1e-6)


def test_clusters__do_not_depend_on_the_scale_of_features_and_take_constant_ones():
    rows = golden_rows("train", "audio")
    stretched = torch.cat([rows.features * torch.tensor([1000.0, 0.01]) + 5, torch.full((12, 1), 7.0)], dim=1)
    assert cluster_purity(Rows(stretched, rows.label), 3) == cluster_purity(rows, 3)


def test_clusters__of_one_class_are_pure_and_of_equal_points_possible():
    rows = Rows(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(20).long())
    assert cluster_purity(rows, 3) == 1
    with pytest.warns(match="distinct clusters"):
        assert cluster_purity(Rows(torch.ones(4, 2), ints([0, 0, 0, 1])), 2) == 0.75


def test_clusters__of_features_that_are_not_finite_are_refused():
    with pytest.raises(RunFailed, match="not finite"):
        cluster_purity(Rows(torch.tensor([[1.0], [float("nan")]]), ints([0, 1])), 2)


# --- pulling ---


@pytest.mark.parametrize(
    ("training", "held_out", "gap", "expected"),
    [
        (0.9, 0.7, "signed", 0.537050),
        (0.7, 0.9, "signed", 0.0),
        (0.7, 0.9, "absolute", 0.537050),
        (0.8, 0.8, "signed", 0),
    ],
)
def test_pull_of__signed_and_absolute_gaps(training, held_out, gap, expected):
    """tanh(0.6) = 0.537050."""
    assert pull_of(training, held_out, 3.0, gap) == pytest.approx(expected, abs=1e-6)
    assert pull_of(training, held_out, 0.0, gap) == 0


def test_pull__equals_the_released_one():
    own = GOLDEN["interpolation"]
    for name, alpha in own["alpha"].items():
        keys = [key for key in own["before"] if key.startswith(name)]
        parameters = [nn.Parameter(torch.tensor(own["before"][key], dtype=torch.float64)) for key in keys]
        pull(parameters, [torch.tensor(own["initial"][key], dtype=torch.float64) for key in keys], alpha)
        for key, parameter in zip(keys, parameters, strict=True):
            torch.testing.assert_close(parameter.detach(), torch.tensor(own["after"][key], dtype=torch.float64))


def test_pull__by_nothing_changes_no_bit_and_by_everything_gives_the_beginning():
    generator = torch.Generator().manual_seed(0)
    now, initial = torch.randn(2, 50, generator=generator)
    for alpha, expected in ((0.0, now), (1.0, initial)):
        parameter = nn.Parameter(now.clone())
        pull([parameter], [initial], alpha)
        assert torch.equal(parameter, expected)
    untrained = nn.Parameter(initial.clone())
    pull([untrained], [initial], 0.37)
    assert torch.equal(untrained, initial)


# --- features ---


def view_of(method, training, held_out, *, epoch=1, forgotten=None, **options) -> EpochView:
    return EpochView(
        method=method,
        clock=tiny.clock(epoch=epoch),
        groups=method.trunk.parameter_groups(),
        samples=sum(map(len, training)),
        batches=lambda indices=None: iter(training),
        held_out=lambda: iter(held_out),
        evaluate=None,
        trial=None,
        forget=lambda parameters: None if forgotten is None else forgotten.append(list(parameters)),
        **options,
    )


def tiny_view(count=2, *, size=40, observed=None, dense=False, **options) -> EpochView:
    torch.manual_seed(0)
    training, held_out = (tiny.batch(count, size=size, seed=seed, dense=dense) for seed in (1, 2))
    if observed is not None:
        training = replace(training, observed=observed)
    task = SegmentationTask(("ground", "square", "other")) if dense else None
    method = Method(tiny.blueprint(count, dense=dense, task=task)).train()
    return view_of(method, [training], [held_out], **options)


def part(data: Batch, rows) -> Batch:
    rows = ints(rows)
    inputs = {name: x[rows] for name, x in data.inputs.items()}
    ids = tuple(data.ids[row] for row in rows.tolist())
    return Batch(inputs, data.observed[rows], data.target[rows], ids, data.index[rows])


def test_rows__are_features_in_evaluation_of_the_samples_that_have_a_modality():
    observed = torch.ones(40, 2).bool()
    observed[10:, 1] = False
    view = tiny_view(observed=observed)
    rows, contested = gathered(view, view.batches())
    assert contested
    assert [len(rows[name].label) for name in ("rgb", "depth")] == [40, 10]
    [data] = view.batches()
    view.method.eval()
    features, _ = view.method.trunk(data.inputs, observed)
    torch.testing.assert_close(rows["depth"].features, features["depth"][-1][:10].detach())
    assert torch.equal(rows["depth"].label, data.target[:10])


def test_rows__are_in_the_order_of_the_samples_whichever_process_had_them():
    view = tiny_view()
    whole, _ = gathered(view, view.batches())
    [data] = view.batches()
    halves = [part(data, range(start, 40, 2)) for start in (1, 0)]
    mixed_up, _ = gathered(view, halves)
    for name, rows in whole.items():
        assert torch.equal(rows.label, mixed_up[name].label)
        torch.testing.assert_close(rows.features, mixed_up[name].features)


def test_rows__of_a_process_without_a_share_are_none():
    view = tiny_view()
    rows, contested = gathered(view, [])
    assert not contested
    assert rows["rgb"].features.shape == (0, tiny.WIDTH)


def test_rows__of_label_maps_are_means_over_the_region_of_a_class():
    task = SegmentationTask(("ground", "square", "other"))
    feature = torch.arange(8.0).view(1, 2, 2, 2)
    target = torch.tensor([[[0, 1], [1, 255]]])
    rows, sample, label = feature_rows(task, feature, target)
    assert label.tolist() == [0, 1]
    assert sample.tolist() == [0, 0]
    assert rows.tolist() == [[0.0, 4.0], [1.5, 5.5]]


# --- when ---


def trained_away(view, balancer):
    """The state of a run whose encoders have moved since the first epoch."""
    balancer.on_epoch_start(replace(view, clock=tiny.clock(epoch=0)))
    with torch.no_grad():
        for parameter in view.method.parameters():
            parameter.add_(0.5)


class Fixed(DiagnosingRelearning):
    """Pulls that are given."""

    def __init__(self, pulls, **options) -> None:
        super().__init__(**options)
        self.pulls = pulls
        self.asked: list[int] = []

    def diagnose(self, epoch):
        self.asked.append(epoch.clock.epoch)
        return self.pulls


@pytest.mark.parametrize(
    ("every", "count", "expected"), [(20, 3, [21, 41, 61]), (1, 2, [2, 3]), (30, 9, [31, 61]), (5, 0, [])]
)
def test_epochs__are_the_released_ones(every, count, expected):
    """Behind epochs 20, 40 and 60, which is before the next one begins; never behind epoch 0."""
    balancer, view = Fixed({"rgb": 0.0, "depth": 0.0}, every=every, count=count), tiny_view()
    for number in range(90):
        balancer.on_epoch_start(replace(view, clock=tiny.clock(epoch=number)))
    assert balancer.asked == expected


@pytest.mark.parametrize("reset_state", [False, True])
def test_pull__moves_encoders_and_nothing_else(reset_state):
    forgotten = []
    view = tiny_view(epoch=2, forgotten=forgotten)
    balancer = Fixed({"rgb": 0.25, "depth": 0.0}, every=1, reset_state=reset_state)
    trained_away(view, balancer)
    before = {name: value.clone() for name, value in view.method.state_dict().items()}
    balancer.on_epoch_start(view)
    moved = {name for name, value in view.method.state_dict().items() if not torch.equal(value, before[name])}
    parameters = {name for name, _ in view.method.named_parameters()}
    assert moved == {name for name in parameters if ".rgb." in name}
    for parameter, initial in zip(view.groups["rgb"], balancer.beginning["rgb"], strict=True):
        torch.testing.assert_close(parameter.detach(), initial + 0.375)
    assert [len(own) for own in forgotten] == ([len(view.groups["rgb"])] if reset_state else [])


def test_diagnose__pulls_what_separates_training_better():
    """The first modality tells the class in training and nothing on validation; the second one nothing anywhere."""
    view = tiny_view(epoch=2, size=90)
    [data] = view.batches()
    told = {**data.inputs, "rgb": data.inputs["rgb"] * 0.1 + 3 * data.target[:, None]}
    told = replace(data, inputs=told)
    view = replace(view, batches=lambda indices=None: iter([told]))
    balancer = DiagnosingRelearning(every=1)
    pulls = balancer.diagnose(view)
    assert pulls["rgb"] > 0.5
    assert pulls["depth"] < 0.3
    assert balancer.diagnose(view) == pulls


def test_diagnose__of_too_few_samples_or_where_nothing_is_contested_pulls_nothing():
    assert DiagnosingRelearning(rows_per_class=14, gap="absolute").diagnose(tiny_view()) == {"rgb": 0, "depth": 0}
    few = torch.ones(40, 2).bool()
    few[29:, 0] = False
    pulls = DiagnosingRelearning(gap="absolute").diagnose(tiny_view(observed=few))
    assert pulls["rgb"] == 0
    assert pulls["depth"] > 0
    alone = torch.eye(2).bool()[torch.arange(40) % 2]
    pulls = DiagnosingRelearning(gap="absolute", rows_per_class=1).diagnose(tiny_view(observed=alone))
    assert pulls == {"rgb": 0, "depth": 0}


def test_diagnose__is_decided_by_the_first_process():
    first = torch.tensor([[0.25, 0.75]], dtype=torch.float64)

    def gather(tensor):
        return torch.cat([first, tensor]) if tensor.dtype == torch.float64 else tensor

    assert DiagnosingRelearning().diagnose(tiny_view(gather=gather)) == {"rgb": 0.25, "depth": 0.75}


def test_diagnose__draws_from_no_global_generator():
    def states():
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002

    view = tiny_view()
    before = states()
    DiagnosingRelearning().diagnose(view)
    assert states() == before


def test_diagnose__of_label_maps_and_in_mixed_precision():
    pulls = DiagnosingRelearning(gap="absolute").diagnose(tiny_view(dense=True))
    assert all(0 <= alpha < 1 for alpha in pulls.values())
    view = tiny_view(autocast=lambda: torch.autocast("cpu", dtype=torch.bfloat16))
    rows, _ = gathered(view, view.batches())
    assert rows["rgb"].features.dtype == torch.float32
    assert all(0 <= alpha < 1 for alpha in DiagnosingRelearning().diagnose(view).values())


# --- BatchNorm ---


def norm_of(method, name) -> nn.BatchNorm1d:
    return method.trunk.encoders[name].stages[0][1]


def test_norms__are_those_of_the_first_batches():
    view = tiny_view()
    [data] = view.batches()
    halves = [part(data, range(start, start + 20)) for start in (0, 20)]
    view = replace(view, batches=lambda indices=None: iter(halves))
    other = {name: value.clone() for name, value in norm_of(view.method, "depth").state_dict().items()}
    with torch.no_grad():
        before = [view.method.trunk.encoders["rgb"].stages[0][0](half.inputs["rgb"]) for half in halves]
    for count, used in ((1, before[:1]), (2, before), (9, before)):
        estimate_norms(view, ["rgb"], count)
        norm = norm_of(view.method, "rgb")
        torch.testing.assert_close(norm.running_mean, torch.stack([x.mean(dim=0) for x in used]).mean(dim=0))
        torch.testing.assert_close(norm.running_var, torch.stack([x.var(dim=0) for x in used]).mean(dim=0))
        assert norm.momentum == 0.1
    assert all(torch.equal(value, other[name]) for name, value in norm_of(view.method, "depth").state_dict().items())
    assert all(module.training for module in view.method.modules())


def test_norms__without_a_batch_to_take_them_from_stay():
    view = tiny_view(size=1)
    norm = norm_of(view.method, "rgb")
    norm.running_mean.fill_(3.0)
    norm.num_batches_tracked.fill_(7)
    estimate_norms(view, ["rgb"], 5)
    assert (norm.running_mean == 3).all()
    assert norm.num_batches_tracked == 7


def test_norms__are_taken_anew_behind_a_pull_where_asked_for():
    for batches in (0, 1):
        view = tiny_view(epoch=2)
        balancer = Fixed({"rgb": 0.5, "depth": 0.0}, every=1, norm_batches=batches)
        trained_away(view, balancer)
        before = norm_of(view.method, "rgb").running_mean.clone()
        balancer.on_epoch_start(view)
        assert torch.equal(norm_of(view.method, "rgb").running_mean, before) is (batches == 0)


# --- runs ---


def eager(**options) -> DiagnosingRelearning:
    return DiagnosingRelearning(every=1, rows_per_class=1, gap="absolute", **options)


@pytest.mark.parametrize("setting", [Setting(2), Setting(3), Setting(2, dense=True)], ids=str)
def test_run__with_strength_zero_is_the_plain_run(setting):
    ours, plain, pulled = Run(setting, eager(strength=0.0)), Run(setting, Balancer()), Run(setting, eager())
    for run in (ours, plain, pulled):
        run.train(mixed(setting))
    assert ours.balancer.done == 2
    assert all(torch.equal(value, plain.weights()[name]) for name, value in ours.weights().items())
    assert any(not torch.equal(value, plain.weights()[name]) for name, value in pulled.weights().items())
    assert all(value.isfinite().all() for value in pulled.weights().values())


def test_run__with_one_modality_is_the_plain_run():
    ours, plain = Run(Setting(1), eager()), Run(Setting(1), Balancer())
    for run in (ours, plain):
        run.train(mixed(Setting(1)))
    assert all(torch.equal(value, plain.weights()[name]) for name, value in ours.weights().items())
    assert ours.balancer.state_dict() == {"beginning": {}, "done": 0}


@pytest.mark.parametrize("step", [STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH + 1])
def test_run__resumed_equals_uninterrupted(step):
    options = {"reset_state": True, "norm_batches": 1}
    whole, first, second = (Run(Setting(2), eager(**options)) for _ in range(3))
    whole.train(mixed(Setting(2)))
    first.train(mixed(Setting(2)), stop=step)
    second.load(through_checkpoint(first.state()))
    second.train(mixed(Setting(2)), start=step)
    assert all(torch.equal(value, second.weights()[name]) for name, value in whole.weights().items())


@pytest.mark.parametrize("wrong", [{"every": 0}, {"strength": -1}, {"gap": "none"}, {"rows_per_class": 0}])
def test_options__refuse(wrong):
    with pytest.raises(ValidationError):
        DiagnosingRelearningOptions(**wrong)
