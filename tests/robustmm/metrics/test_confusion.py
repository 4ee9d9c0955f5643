"""Counting predictions by true and predicted class."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from robustmm.errors import DataError, ShapeError
from robustmm.metrics.confusion import confusion_matrix, predicted_class, predicted_counts, true_counts

#: (true class, predicted class), where 3 and -1 are no class of three and 255 is void.
pairs = st.lists(st.tuples(st.sampled_from([0, 1, 2, 255]), st.integers(-1, 3)), min_size=1, max_size=30)


def count(rows: list[tuple[int, int]]) -> torch.Tensor:
    target, prediction = torch.tensor(rows, dtype=torch.int64).reshape(-1, 2).unbind(dim=1)
    return confusion_matrix(prediction, target, 3, ignore_index=255)


def test_confusion_matrix__has_truth_in_rows_and_an_extra_column_for_no_class() -> None:
    confusion = confusion_matrix(torch.tensor([0, 1, 1, -1, 7]), torch.tensor([0, 0, 1, 1, 1]), 2)
    assert confusion.tolist() == [[1, 1, 0], [0, 1, 2]]
    assert confusion.dtype == torch.int64


def test_confusion_matrix__agrees_with_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    target, prediction = torch.randint(0, 5, (2, 200), generator=generator)
    expected = sklearn_confusion_matrix(target.numpy(), prediction.numpy(), labels=range(5))
    confusion = confusion_matrix(prediction, target, 5)
    assert confusion[:, :5].tolist() == expected.tolist()
    assert not confusion[:, 5].any()


def test_confusion_matrix__counts_maps_without_their_void_pixels() -> None:
    target = torch.tensor([[[0, 255], [1, 1]]])
    assert confusion_matrix(torch.zeros_like(target), target, 2, ignore_index=255).tolist() == [[1, 0, 0], [2, 0, 0]]


def test_confusion_matrix__takes_eight_bit_labels_and_many_classes() -> None:
    target = torch.tensor([199, 0], dtype=torch.uint8)
    confusion = confusion_matrix(torch.tensor([199, 3]), target, 200)
    assert confusion[199, 199] == 1
    assert confusion[0, 3] == 1
    assert confusion.sum() == 2


def test_confusion_matrix__of_nothing_is_zero() -> None:
    assert not confusion_matrix(torch.zeros(0), torch.zeros(0, dtype=torch.int64), 3).any()


@settings(max_examples=50, deadline=None)
@given(pairs, pairs)
def test_confusion_matrix__of_parts_adds_up_to_the_whole(
    first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> None:
    assert torch.equal(count(first) + count(second), count(first + second))


@settings(max_examples=50, deadline=None)
@given(pairs, st.randoms(use_true_random=False))
def test_confusion_matrix__does_not_depend_on_order_and_loses_no_row(
    rows: list[tuple[int, int]], random: Random
) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert torch.equal(count(shuffled), count(rows))
    assert count(rows).sum() == sum(truth != 255 for truth, _ in rows)


def test_counts__include_no_class_in_truth_but_not_in_predictions() -> None:
    confusion = torch.tensor([[1, 1, 0], [0, 1, 2]])
    assert true_counts(confusion).tolist() == [2, 3]
    assert predicted_counts(confusion).tolist() == [1, 2]


def test_predicted_class__is_minus_one_where_a_logit_is_not_finite() -> None:
    logits = torch.tensor([[0.0, 1.0], [float("nan"), 1.0], [float("inf"), 1.0], [3.0, float("-inf")]])
    assert predicted_class(logits).tolist() == [1, -1, -1, -1]
    assert predicted_class(logits.T[None, :, :, None]).squeeze().tolist() == [1, -1, -1, -1]


def test_confusion_matrix__names_a_label_that_is_no_class() -> None:
    with pytest.raises(DataError, match=r"label 3 is not a class: labels must be 0\.\.2$"):
        confusion_matrix(torch.tensor([0, 0]), torch.tensor([0, 3]), 3)
    with pytest.raises(DataError, match=r"label -1 is not a class: labels must be 0\.\.2 or the ignored label 255"):
        confusion_matrix(torch.tensor([0, 0]), torch.tensor([-1, 255]), 3, ignore_index=255)


def test_confusion_matrix__refuses_unequal_shapes() -> None:
    with pytest.raises(ShapeError, match=r"prediction and target are \(2,\) and \(3,\); they must share one shape"):
        confusion_matrix(torch.zeros(2), torch.zeros(3), 2)


def test_counts__refuse_a_square_matrix() -> None:
    with pytest.raises(ShapeError, match=r"is \(C, C \+ 1\), the last column for invalid; got \(2, 2\)"):
        true_counts(torch.zeros(2, 2))
