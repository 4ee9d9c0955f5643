"""Metrics that average over rows or rank them: values by hand, batches, merging, pixels, broken logits."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from torch import Tensor

from robustmm import Metric, aurc
from robustmm.plugin_manager import get_plugins

CLASSES = ("a", "b", "c")
NAMES = ("brier", "nll", "aurc")
#: Probabilities that are exact in binary; the second row is wrong.
PROBABILITIES = torch.tensor([[0.5, 0.25, 0.25], [0.75, 0.25, 0.0], [0.0, 0.0, 1.0]])
TARGET = torch.tensor([0, 1, 2])


def metric(name: str) -> Metric:
    made: Metric = get_plugins().registry.get("metric", name).build(classes=CLASSES)
    return made


def counted(name: str, *parts: tuple[Tensor, Tensor]) -> float | None:
    made = metric(name)
    for logits, target in parts:
        made.update(logits, target)
    return made.compute()


def some_rows(count: int = 30) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, generator=generator), torch.randint(3, (count,), generator=generator)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        # rows: 0.25 + 0.0625 + 0.0625, 0.5625 + 0.5625 + 0, 0
        ("brier", (0.375 + 1.125 + 0) / 3),
        ("nll", (math.log(2) + math.log(4)) / 3),
        # by confidence: right (1.0), wrong (0.75), right (0.5): errors 0/1, 1/2, 1/3
        ("aurc", (0 + 1 / 2 + 1 / 3) / 3),
    ],
)
def test_row_metric__equals_the_value_worked_by_hand(name: str, value: float) -> None:
    logits = PROBABILITIES.clamp_min(1e-30).log()  # finite: an infinite logit is no prediction
    assert counted(name, (logits, TARGET)) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_row_metric__of_batches_and_of_processes_equals_that_of_all_rows(name: str) -> None:
    logits, target = some_rows()
    whole = counted(name, (logits, target))
    assert counted(name, (logits[:7], target[:7]), (logits[7:], target[7:])) == pytest.approx(whole, abs=1e-12)
    first, other = metric(name), metric(name)
    first.update(logits[:7], target[:7])
    other.update(logits[7:], target[7:])
    first.merge(pickle.loads(pickle.dumps(other)))
    assert first.compute() == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_row_metric__of_maps_counts_every_pixel_but_the_void(name: str) -> None:
    logits, target = some_rows(24)
    target[5] = 255
    kept = target != 255
    maps = logits.reshape(2, 3, 4, 3).movedim(-1, 1)  # (B, C, H, W)
    whole = counted(name, (logits[kept], target[kept]))
    assert counted(name, (maps, target.reshape(2, 3, 4))) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_row_metric__without_rows_is_none_and_less_is_better(name: str) -> None:
    assert counted(name) is None
    assert counted(name, (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))) is None
    assert metric(name).direction == "min"


@pytest.mark.parametrize(("name", "worst"), [("brier", 2.0), ("nll", math.inf), ("aurc", 1.0)])
def test_row_metric__takes_nan_for_the_worst(name: str, worst: float) -> None:
    assert counted(name, (torch.full((4, 3), math.nan), torch.tensor([0, 1, 2, 0]))) == worst


@pytest.mark.parametrize("name", NAMES)
def test_row_metric__counts_under_inference_and_in_half_precision(name: str) -> None:
    logits, target = some_rows()
    with torch.inference_mode():
        made = metric(name)
        made.update(logits.bfloat16(), target)
    exact = counted(name, (logits.bfloat16().float(), target))
    assert made.compute() == pytest.approx(exact, abs=1e-12)


def test_risk_coverage__is_the_core_formula_of_the_largest_probability() -> None:
    logits, target = some_rows()
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    assert counted("aurc", (logits, target)) == pytest.approx(aurc(confidence, predicted == target), abs=1e-12)
