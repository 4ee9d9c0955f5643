"""Area under the ROC curve and under the risk-coverage curve."""

from __future__ import annotations

import json
import math
from itertools import permutations
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import Tensor

from robustmm.errors import ShapeError
from robustmm.metrics.ranking import aurc, auroc, auroc_per_class, macro_auroc

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "metrics.json").read_text())
#: (score, flag) with few distinct scores, so that ties are common.
scored = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=25)


def columns(rows: list[tuple[int, bool]]) -> tuple[Tensor, Tensor]:
    return torch.tensor([float(score) for score, _ in rows]), torch.tensor([flag for _, flag in rows])


def random_probabilities(rows: int = 60, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    return logits.softmax(dim=1), torch.randint(0, classes, (rows,), generator=generator)


def test_auroc__matches_the_hand_worked_value() -> None:
    example = GOLDEN["auroc"]
    score = torch.tensor(example["positives"] + example["negatives"])
    assert auroc(score, torch.arange(5) < 3) == pytest.approx(example["auroc"], abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(scored)
def test_auroc__agrees_with_scikit_learn_and_handles_ties(rows: list[tuple[int, bool]]) -> None:
    score, positive = columns(rows)
    assume(0 < positive.sum() < len(positive))
    assert auroc(score, positive) == pytest.approx(roc_auc_score(positive, score))


def test_auroc__of_constant_scores_is_one_half() -> None:
    assert auroc(torch.zeros(5), torch.arange(5) < 2) == 0.5


def test_auroc__turns_around_with_the_scores() -> None:
    score, positive = torch.randn(30, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3 == 0
    value, turned = auroc(score, positive), auroc(-score, positive)
    assert value is not None
    assert turned == pytest.approx(1 - value)


def test_auroc__takes_scores_that_are_nan_as_the_worst() -> None:
    score = torch.tensor([math.nan, 0.9, 0.1, 0.2])
    assert auroc(score, torch.tensor([True, True, False, False])) == 0.5
    assert auroc(score, torch.tensor([False, True, False, False])) == pytest.approx(2 / 3)


def test_auroc__takes_half_precision() -> None:
    score = torch.tensor([0.9, 0.8, 0.4, 0.7, 0.3], dtype=torch.bfloat16)
    assert auroc(score, torch.arange(5) < 3) == pytest.approx(5 / 6)


@pytest.mark.parametrize("positive", [True, False])
def test_auroc__without_one_side_is_none(positive: bool) -> None:
    assert auroc(torch.rand(3), torch.full((3,), positive)) is None
    assert auroc(torch.zeros(0), torch.zeros(0, dtype=torch.bool)) is None


def test_macro_auroc__agrees_with_scikit_learn() -> None:
    probabilities, target = random_probabilities()
    expected = roc_auc_score(target, probabilities, multi_class="ovr", average="macro")
    assert macro_auroc(probabilities, target) == pytest.approx(expected)


def test_macro_auroc__skips_classes_that_the_truth_lacks() -> None:
    probabilities, target = random_probabilities()
    target = target.clamp(max=2)  # class 3 never occurs
    per_class = auroc_per_class(probabilities, target)
    expected = [roc_auc_score(target == index, probabilities[:, index]) for index in range(3)]
    assert per_class[:3].tolist() == pytest.approx(expected)
    assert per_class[3].isnan()
    assert macro_auroc(probabilities, target) == pytest.approx(sum(expected) / 3)


def test_macro_auroc__of_a_single_class_is_none() -> None:
    assert macro_auroc(torch.rand(4, 3), torch.ones(4, dtype=torch.int64)) is None
    assert macro_auroc(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)) is None


def test_aurc__matches_the_hand_worked_value() -> None:
    example = GOLDEN["aurc"]
    value = aurc(torch.tensor(example["confidence"]), torch.tensor(example["correct"]))
    assert value == pytest.approx(example["aurc"], abs=1e-6)


def test_aurc__of_ties_is_the_mean_over_their_orders() -> None:
    wrong = [True, False, False, True]
    risks = []
    for order in permutations(wrong[1:]):  # the first row is surest, the others tie
        errors = torch.tensor([wrong[0], *order]).double().cumsum(dim=0)
        risks.append((errors / torch.arange(1, 5)).mean().item())
    value = aurc(torch.tensor([0.9, 0.5, 0.5, 0.5]), ~torch.tensor(wrong))
    assert value == pytest.approx(sum(risks) / len(risks))


@settings(max_examples=50, deadline=None)
@given(scored, st.integers(0, 2**31))
def test_aurc__does_not_depend_on_order_and_lies_in_its_range(rows: list[tuple[int, bool]], seed: int) -> None:
    confidence, correct = columns(rows)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    value = aurc(confidence, correct)
    assert value is not None
    assert 0 <= value <= 1
    assert aurc(confidence[order], correct[order]) == pytest.approx(value)


def test_aurc__of_one_confidence_for_all_is_the_error_rate() -> None:
    assert aurc(torch.ones(4), torch.tensor([True, False, True, True])) == pytest.approx(0.25)


def test_aurc__takes_a_wrong_row_that_is_nan_as_the_surest() -> None:
    value = aurc(torch.tensor([math.nan, 0.5]), torch.tensor([False, True]))
    assert value == pytest.approx((1 + 0.5) / 2)


def test_aurc__without_rows_is_none() -> None:
    assert aurc(torch.zeros(0), torch.zeros(0, dtype=torch.bool)) is None


def test_ranking__refuses_unequal_shapes() -> None:
    with pytest.raises(ShapeError, match=r"auroc: score and positive are \(2,\) and \(3,\); both must be \(R,\)"):
        auroc(torch.zeros(2), torch.zeros(3))
    with pytest.raises(
        ShapeError, match=r"scores and target are \(2, 3\) and \(3,\); they must be \(R, C\) and \(R,\)"
    ):
        auroc_per_class(torch.zeros(2, 3), torch.zeros(3))
