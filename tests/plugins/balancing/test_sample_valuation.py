"""Sample-level modality valuation: Shapley values, numbers of copies, and the plan that comes of them."""

import json
from collections import Counter
from dataclasses import replace
from itertools import permutations
from math import factorial
from pathlib import Path

import pytest
import tiny_models as tiny
import torch
from pydantic import ValidationError
from robustmm_plugins.balancing import sample_valuation
from robustmm_plugins.balancing.sample_valuation import (
    SampleValuation,
    SampleValuationOptions,
    number_of_copies,
    shapley_values,
    share_of_copies,
    share_of_right_rows,
)
from torch import nn

from robustmm import Encoder, EpochView, Method, MissingPolicy, SegmentationTask, combination_table
from robustmm.models.trunk import LateTrunk
from robustmm.testing.runs import Run, mixed
from robustmm.testing.tiny import Setting
from robustmm.types import Batch

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "sample_valuation.json").read_text())
#: Right predictions from audio, visual and both -> values and copies of audio and visual, worked by hand.
WORKED = {
    "000": ((0, 0), (2, 2)),
    "001": ((1, 1), (0, 0)),
    "010": ((-0.5, 0.5), (3, 1)),
    "011": ((0.5, 1.5), (1, 0)),
    "100": ((0.5, -0.5), (1, 3)),
    "101": ((1.5, 0.5), (0, 1)),
    "110": ((0, 0), (2, 2)),
    "111": ((1, 1), (0, 0)),
}


def bits(patterns) -> torch.Tensor:
    return torch.tensor([[digit == "1" for digit in pattern] for pattern in patterns])


# --- Shapley values ---


@pytest.mark.parametrize(("pattern", "worked"), WORKED.items())
def test_values_and_copies__match_the_worked_table(pattern, worked):
    values = shapley_values(bits([pattern]), torch.ones(1, 2).bool())
    assert values[0].tolist() == pytest.approx(worked[0])
    assert number_of_copies(values)[0].tolist() == list(worked[1])


def test_values__of_three_modalities():
    """All right: one each. Right exactly where the first one is in: 2, 0.5, 0.5."""
    table = combination_table(("a", "b", "c"))
    right = torch.stack([torch.ones(7).bool(), table[:, 0]])
    values = shapley_values(right, torch.ones(2, 3).bool())
    torch.testing.assert_close(values, torch.tensor([[1, 1, 1], [2, 0.5, 0.5]], dtype=torch.float64))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_values__are_mean_contributions_over_all_orders_among_what_is_there(count):
    generator = torch.Generator().manual_seed(count)
    table = combination_table([str(column) for column in range(count)])
    right = torch.rand(8, len(table), generator=generator) < 0.5
    observed = tiny.mixed_presence(count, size=8)
    place = {tuple(row): k for k, row in enumerate(table.tolist())}
    for row in range(8):
        present = observed[row].nonzero().squeeze(1).tolist()

        def benefit(chosen, row=row, present=present):
            key = tuple(column in chosen for column in range(count))
            return len(chosen) * bool(right[row, place[key]]) if chosen else 0

        # Combinations that are cut to the same set give one prediction.
        for k, combination in enumerate(table.tolist()):
            cut = tuple(on and column in present for column, on in enumerate(combination))
            if any(cut):
                right[row, k] = right[row, place[cut]]
        values = shapley_values(right, observed)
        expected = dict.fromkeys(present, 0.0)
        for order in permutations(present):
            for end, player in enumerate(order, start=1):
                expected[player] += (benefit(order[:end]) - benefit(order[: end - 1])) / factorial(len(present))
        assert values[row, present].tolist() == pytest.approx([expected[player] for player in present])
        absent = [column for column in range(count) if column not in present]
        assert values[row, absent].tolist() == pytest.approx([0.0] * len(absent))
        assert values[row].sum().item() == pytest.approx(benefit(present))


def test_values__of_identical_modalities_are_equal():
    table = combination_table(("a", "b", "c"))
    right = (table[:, 0] | table[:, 2])[None]
    values = shapley_values(right, torch.ones(1, 3).bool())[0]
    assert values[0].item() == pytest.approx(values[2].item())
    assert values.sum().item() == pytest.approx(3)


def test_copies__thresholds_and_rounding():
    values = torch.tensor([1.5, 1.0, 1 - 1e-9, 0.99, 0.4, 0.39, 0.0, -0.1, -0.11], dtype=torch.float64)
    assert number_of_copies(values).tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3]


# --- share of copies ---


def test_share__matches_the_worked_example():
    column, share = share_of_copies(torch.tensor([1.2, 0.6], dtype=torch.float64), alpha=1)
    assert column == 1
    assert share == pytest.approx(0.4)
    assert share_of_copies(torch.tensor([1.2, 0.6]), alpha=0)[1] == 0


@pytest.mark.parametrize("case", ["audio_leads", "visual_leads", "even"])
def test_share__equals_the_released_one(case):
    own = GOLDEN["modality_level"][case]
    right = bits(own["patterns_audio_visual_both"])
    values = shapley_values(right, torch.ones(len(right), 2).bool())
    for column, name in enumerate(("audio", "visual")):
        assert values[:, column].tolist() == pytest.approx(own["shapley"][name])
    means = values[own["drawn"]].mean(dim=0)
    assert means.tolist() == pytest.approx([own["mean_shapley"][name] for name in ("audio", "visual")])
    column, share = share_of_copies(means, own["alpha"])
    assert share == pytest.approx(own["share"])
    assert int(share * len(values) + 1e-6) == own["number_of_copies"]
    if own["number_of_copies"]:
        assert ("visual", "audio")[column] == own["zeroed_in_copies"]


def test_share__of_three_is_against_the_mean_of_the_others_and_without_others_nothing():
    column, share = share_of_copies(torch.tensor([1.5, 0.0, 0.9]), alpha=1)
    assert column == 1
    assert share == pytest.approx(2 / 3 * (1 - (-0.5 + 0.1) / 2))
    assert share_of_copies(torch.tensor([float("nan"), 0.0, 0.6]), 1) == (1, pytest.approx(0.4))
    assert share_of_copies(torch.tensor([float("nan"), 0.0]), 1)[1] == 0


# --- against the authors' code ---


class Concat(nn.Module):
    """Side by side."""

    def __init__(self, width) -> None:
        super().__init__()
        self.channels = (width,)

    def forward(self, level, features, presence):
        return torch.cat(list(features.values()), dim=1)

    def summands(self, level, features, presence):
        return None


def audio_visual(layers, head) -> Method:
    modalities = tuple(tiny.Modality(name, "vector", (3,), tiny.Scaling("none")) for name in ("audio", "visual"))
    encoders = {name: Encoder(nn.ModuleList([layer]), (3,), (0,)) for name, layer in layers.items()}
    trunk = LateTrunk(modalities, encoders, Concat(6), MissingPolicy())
    made = tiny.LinearHead((6,), 3)
    made.linear = head
    blueprint = tiny.Blueprint(modalities, tiny.TinyTask(), lambda **_: trunk, lambda channels: made)
    return Method(blueprint)


def linear(weight, bias=None) -> nn.Linear:
    weight = torch.tensor(weight, dtype=torch.float64)
    layer = nn.Linear(*weight.shape[::-1], bias=bias is not None).double()
    state = {"weight": weight} | ({} if bias is None else {"bias": torch.tensor(bias, dtype=torch.float64)})
    layer.load_state_dict(state)
    return layer


def view_of(method, batches, *, epoch=5) -> EpochView:
    joined = {batch.index.tolist()[0]: batch for batch in batches}  # batches of one sample

    def at(indices=None):
        return iter(batches if indices is None else [joined[place] for place in indices.tolist()])

    return EpochView(
        method=method,
        clock=tiny.clock(epoch=epoch),
        groups=method.trunk.parameter_groups(),
        samples=len(batches),
        batches=at,
        held_out=lambda: iter(()),
        evaluate=None,
        trial=None,
        forget=None,
    )


def singles(data: Batch) -> list[Batch]:
    def rows(start):
        inputs = {name: x[start : start + 1] for name, x in data.inputs.items()}
        part = slice(start, start + 1)
        return Batch(inputs, data.observed[part], data.target[part], data.ids[part], torch.tensor([start]))

    return [rows(start) for start in range(len(data))]


def golden_view(**options) -> EpochView:
    own = GOLDEN["sample_level"]
    method = audio_visual(
        {"audio": nn.Identity(), "visual": nn.Identity()}, linear(own["fusion_weight"], own["fusion_bias"])
    )
    inputs = {name: torch.tensor(own[f"{name}_features"], dtype=torch.float64) for name in ("audio", "visual")}
    target = torch.tensor(own["label"])
    ids = tuple(map(str, range(len(target))))
    observed = torch.ones(len(target), 2).bool()
    return view_of(method, singles(Batch(inputs, observed, target, ids, torch.arange(len(target)))), **options)


def test_sample_level__makes_the_released_list():
    own = GOLDEN["sample_level"]
    balancer = SampleValuation()
    values, observed = balancer.value(golden_view(), torch.arange(8))
    assert observed.all()
    for column, name in enumerate(("audio", "visual")):
        assert values[:, column].tolist() == pytest.approx(own["shapley"][name])
    plan = balancer.on_epoch_start(golden_view())
    masks = {"none": (True, True), "visual": (True, False), "audio": (False, True)}
    wanted = Counter((sample, masks[zeroed]) for sample, zeroed in zip(*own["list"].values(), strict=True))
    assert Counter(zip(plan.indices.tolist(), map(tuple, plan.keep.tolist()), strict=True)) == wanted
    assert plan.indices[:8].tolist() == list(range(8))
    assert plan.keep[:8].all()


def test_marked_copies__have_the_released_loss_and_gradients():
    own = GOLDEN["marked_copies"]
    given = own["parameters"]
    layers = {name: linear(given[f"{name}_net.fc.weight"]) for name in ("audio", "visual")}
    head = linear(given["fusion_module.fc_out.weight"], given["fusion_module.fc_out.bias"])
    method = audio_visual(layers, head).train()
    inputs = {name: torch.tensor(own[name], dtype=torch.float64) for name in layers}
    shown = torch.tensor([[zeroed != name for name in layers] for zeroed in own["zeroed"]])
    output = method(inputs, shown)
    loss = method.task.loss(output.logits, torch.tensor(own["label"]))
    loss.backward()
    torch.testing.assert_close(output.logits, torch.tensor(own["fused_logits"], dtype=torch.float64))
    assert loss.item() == pytest.approx(own["loss"], rel=1e-10)
    found = {f"{name}_net.fc.weight": layer.weight.grad for name, layer in layers.items()}
    found |= {"fusion_module.fc_out.weight": head.weight.grad, "fusion_module.fc_out.bias": head.bias.grad}
    for name, expected in own["gradient"].items():
        torch.testing.assert_close(found[name], torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_marked_copy__gives_the_withheld_encoder_exactly_no_gradient():
    method = Method(tiny.blueprint(2)).train()
    data = tiny.batch(2)
    output = method(data.inputs, tiny.shown(("rgb",), 2))
    method.task.loss(output.logits, data.target).backward()
    grads = [parameter.grad for parameter in method.trunk.encoders["depth"].parameters()]
    assert all(grad is None or not grad.any() for grad in grads)


# --- plans ---


def tiny_view(count=3, *, size=12, observed=None, epoch=5, dense=False) -> EpochView:
    torch.manual_seed(0)
    data = tiny.batch(count, size=size, dense=dense)
    data = data if observed is None else replace(data, observed=observed)
    method = Method(tiny.blueprint(count, dense=dense)).train()
    return view_of(method, singles(data), epoch=epoch)


@pytest.mark.parametrize(("warmup", "first"), [(0, 1), (1, 1), (5, 5)])
def test_plan__begins_behind_the_warm_up(warmup, first):
    """The released code values at the end of epoch e >= warmup - 1; nothing is known of an untrained model."""
    begun = [e for e in range(8) if SampleValuation(warmup_epochs=warmup).on_epoch_start(tiny_view(epoch=e))]
    assert begun[0] == first


@pytest.mark.parametrize("count", [2, 3, 4])
def test_plan__has_each_original_once_and_copies_that_keep_one_modality_that_is_there(count):
    observed = tiny.mixed_presence(count, size=12)
    view = tiny_view(count, observed=observed)
    plan = SampleValuation().on_epoch_start(view)
    assert plan.indices[:12].tolist() == list(range(12))
    assert plan.keep[:12].all()
    copied, kept = plan.indices[12:], plan.keep[12:]
    assert len(copied)
    assert (kept.sum(dim=1) == 1).all()
    assert (kept & observed[copied]).any(dim=1).all()
    assert (observed[copied].sum(dim=1) > 1).all()
    values, _ = SampleValuation().value(view, torch.arange(12))
    wanted = number_of_copies(values) * (observed & (observed.sum(dim=1, keepdim=True) > 1))
    found = torch.zeros(12, count, dtype=torch.int64).index_put_(
        (copied, kept.long().argmax(dim=1)), torch.ones(()).long(), True
    )
    assert torch.equal(found, wanted)


def test_plan__where_nothing_is_contested_is_none():
    alone = torch.eye(3).bool()[torch.arange(12) % 3]
    for level in ("sample", "modality"):
        assert SampleValuation(level=level).on_epoch_start(tiny_view(observed=alone)) is None
    assert SampleValuation().on_epoch_start(tiny_view(1)) is None


class Fixed(SampleValuation):
    """Values that are given."""

    def __init__(self, values, **options) -> None:
        super().__init__(level="modality", **options)
        self.given = torch.tensor(values, dtype=torch.float64)
        self.asked: list[torch.Tensor] = []

    def value(self, epoch, positions):
        self.asked.append(positions)
        _, observed = super().value(epoch, positions)
        return self.given.expand(len(positions), -1), observed


def test_modality_level__adds_copies_that_keep_the_weaker_modality():
    """Means 1.2 and 0.6: a share of 0.4, of 50 samples 20."""
    balancer = Fixed([1.2, 0.6], part_ratio=0.2)
    plan = balancer.on_epoch_start(tiny_view(2, size=50))
    assert len(balancer.asked[0]) <= 10
    assert plan.indices[:50].tolist() == list(range(50))
    assert len(plan.indices) == 70
    assert plan.keep[50:].tolist() == [[False, True]] * 20


def test_modality_level__is_seeded_new_each_epoch():
    def plan(epoch):
        return Fixed([1.2, 0.6]).on_epoch_start(tiny_view(2, size=50, epoch=epoch)).indices.tolist()

    assert plan(5) == plan(5)
    assert plan(5) != plan(6)


def test_modality_level__copies_come_from_samples_that_have_the_modality_and_another():
    observed = torch.ones(50, 2).bool()
    observed[:20, 1] = False
    observed[20:25, 0] = False
    plan = Fixed([1.2, 0.6], part_ratio=1.0).on_epoch_start(tiny_view(2, size=50, observed=observed))
    assert len(plan.indices) == 50 + 10  # 0.4 of 25
    assert (plan.indices[50:] >= 25).all()


def test_modality_level__share_of_less_than_a_sample_is_none():
    assert Fixed([1.0, 0.9], part_ratio=1.0).on_epoch_start(tiny_view(2, size=12)) is None
    assert Fixed([1.0, 1.0]).on_epoch_start(tiny_view(2, size=12)) is None


# --- label maps ---


def test_right_rows__of_maps_are_shares_of_valid_pixels():
    task = SegmentationTask(("ground", "square"))
    logits = torch.zeros(3, 2, 1, 4)
    logits[:, 1] = 1.0
    target = torch.tensor([[[1, 1, 0, 255]], [[1, 1, 1, 1]], [[255, 255, 255, 255]]])
    found = share_of_right_rows(task, logits, target).tolist()
    assert found[:2] == pytest.approx([2 / 3, 1])
    assert found[2] != found[2]


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_dense__map_is_right_from_the_median_or_a_given_share_on(monkeypatch, threshold):
    """Complete scores 0.2, 0.4, 0.6, and a map without a label, which gets no copy."""
    nan = float("nan")
    scores = torch.tensor([[0.1, 0.5, 0.2], [0.3, 0.4, 0.4], [0.6, 0.1, 0.6], [nan, nan, nan]])
    view = tiny_view(2, size=4, dense=True)
    monkeypatch.setattr(sample_valuation, "_gathered", lambda epoch, positions: (scores, torch.ones(4, 2).bool()))
    values, _ = SampleValuation(dense_threshold=threshold).value(view, torch.arange(4))
    wanted = shapley_values(scores >= (0.4 if threshold is None else threshold), torch.ones(4, 2).bool())
    assert torch.equal(values[:3], wanted[:3])
    assert values[3].tolist() == [1.0, 1.0]


def test_dense__runs():
    view = tiny_view(2, size=4, dense=True)
    plan = SampleValuation().on_epoch_start(view)
    assert plan is None or plan.keep.shape == (len(plan.indices), 2)
    values, _ = SampleValuation().value(view, torch.arange(4))
    assert values.isfinite().all()


# --- processes and runs ---


def test_value__is_put_in_order_whichever_process_had_a_sample(monkeypatch):
    """A process without a share gathers the others'."""
    view = tiny_view()
    whole, _ = SampleValuation().value(view, torch.arange(12))
    empty = replace(view, batches=lambda indices: iter(()))
    gathered = iter([])

    def others(tensor):
        return torch.cat([tensor, next(gathered)])

    found = []
    recording = replace(view, gather=lambda tensor: found.append(tensor) or tensor)
    SampleValuation().value(recording, torch.arange(12))
    turn = torch.arange(11, -1, -1)
    gathered = iter([tensor[turn] for tensor in found])
    values, _ = SampleValuation().value(replace(empty, gather=others), torch.arange(12))
    assert torch.equal(values, whole)


@pytest.mark.parametrize("level", ["sample", "modality"])
@pytest.mark.parametrize("setting", [Setting(2), Setting(3), Setting(2, dense=True)], ids=str)
def test_run__plans_are_sound_from_the_second_epoch_on(level, setting):
    run = Run(setting, SampleValuation(level=level, warmup_epochs=0), accumulate=2)
    plans, start = [], run.balancer.on_epoch_start
    run.balancer.on_epoch_start = lambda epoch: plans.append(start(epoch)) or plans[-1]
    run.train(mixed(setting))
    assert plans[0] is None
    assert any(plan is not None for plan in plans)


@pytest.mark.parametrize("wrong", [{"level": "batch"}, {"part_ratio": 0.0}, {"alpha": -1}, {"dense_threshold": 2}])
def test_options__refuse(wrong):
    with pytest.raises(ValidationError):
        SampleValuationOptions(**wrong)
