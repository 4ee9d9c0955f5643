"""Samples for pictures: predicted as evaluation predicts them, one by one."""

from __future__ import annotations

import pytest
import tiny_models as tiny
import torch

from robustmm.data.dataset import ArrayDataset
from robustmm.data.parts import Part
from robustmm.engine.shots import Shot, spread_positions, take_shots
from robustmm.masks import all_combinations, presence_of
from robustmm.methods import probes
from robustmm.methods.method import Method

CPU = torch.device("cpu")
COUNT = 3
COMBINATIONS = all_combinations(tiny.NAMES[:COUNT])


@pytest.fixture
def method() -> Method:
    torch.manual_seed(0)
    made = Method(tiny.blueprint(COUNT, dense=True))
    made(tiny.batch(COUNT, dense=True).inputs, tiny.mixed_presence(COUNT), size=tiny.GRID)  # statistics are not fresh
    return made


def part(observed: torch.Tensor | None = None) -> Part:
    data = tiny.batch(COUNT, dense=True, seed=1)
    return Part(ArrayDataset(data.inputs, data.target, data.ids, observed), range(len(data)))


def shots(method: Method, samples: Part, positions: list[int]) -> list[Shot]:
    modalities = tiny.blueprint(COUNT, dense=True).modalities
    found = take_shots(method, samples, modalities, CPU, positions=positions, combinations=COMBINATIONS)
    return list(found)


@pytest.mark.parametrize(
    ("total", "count", "expected"),
    [(12, 3, [2, 6, 10]), (3, 6, [0, 1, 2]), (1, 1, [0]), (100, 1, [50]), (7, 0, [])],
)
def test_spread_positions__are_even_and_different(total: int, count: int, expected: list[int]) -> None:
    assert spread_positions(total, count) == expected


@pytest.mark.parametrize("at_once", [1, 1 << 22])
def test_shots__are_what_the_model_says_of_each_combination(
    method: Method, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(probes, "FUSE_AT_ONCE", at_once)
    samples = part()
    found = shots(method, samples, [1, 6])
    method.eval()
    for shot, position in zip(found, [1, 6], strict=True):
        sample = samples.dataset[position]
        assert (shot.position, shot.id) == (position, sample["id"])
        assert torch.equal(shot.target, sample["target"])
        assert list(shot.predictions) == COMBINATIONS
        for combo, own in shot.predictions.items():
            inputs = {name: value[None] for name, value in sample["inputs"].items()}
            presence = presence_of(combo, method.modalities)[None]
            expected = method(inputs, presence, size=tiny.GRID).logits.argmax(dim=1)[0]
            assert own is not None
            assert own.tolist() == expected.tolist()


def test_shots__leave_the_model_as_it_was(method: Method) -> None:
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.train()
    method.head.eval()
    shots(method, part(), [0])
    assert method.training
    assert not method.head.training
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_shots__absent_modality_is_in_no_input_and_alone_predicts_nothing(method: Method) -> None:
    observed = torch.ones(8, COUNT, dtype=torch.bool)
    observed[2, 1] = False
    (shot,) = shots(method, part(observed), [2])
    assert list(shot.inputs) == ["rgb", "ir"]
    assert [combo for combo, own in shot.predictions.items() if own is None] == [("depth",)]
    both, alone = shot.predictions["rgb", "depth"], shot.predictions["rgb",]
    assert both is not None
    assert alone is not None
    assert torch.equal(both, alone)


def test_shots__prediction_that_is_not_finite_is_no_class(method: Method) -> None:
    with torch.no_grad():
        method.head.linear.bias[0] = float("nan")
    (shot,) = shots(method, part(), [0])
    assert all(own is not None and bool((own == -1).all()) for own in shot.predictions.values())
