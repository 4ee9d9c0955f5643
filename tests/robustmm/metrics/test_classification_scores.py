"""Accuracy, recall, precision, F1 and the warning of a degenerate model."""

from __future__ import annotations

import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch import Tensor

from robustmm.metrics import classification
from robustmm.metrics.confusion import confusion_matrix

NONE = torch.zeros(3, 4, dtype=torch.int64)


def random_rows(classes: int, rows: int = 100) -> tuple[Tensor, Tensor]:
    target, prediction = torch.randint(0, classes, (2, rows), generator=torch.Generator().manual_seed(classes))
    return target, prediction


@pytest.mark.parametrize("classes", [2, 5])
def test_classification_scores__agree_with_scikit_learn(classes: int) -> None:
    target, prediction = random_rows(classes)
    confusion = confusion_matrix(prediction, target, classes)
    assert classification.accuracy(confusion) == pytest.approx(sklearn_metrics.accuracy_score(target, prediction))
    assert classification.macro_accuracy(confusion) == pytest.approx(
        sklearn_metrics.balanced_accuracy_score(target, prediction)
    )
    macro_f1 = sklearn_metrics.f1_score(target, prediction, average="macro")
    assert classification.macro_f1(confusion) == pytest.approx(macro_f1)
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(target, prediction)
    assert classification.precision_per_class(confusion).tolist() == pytest.approx(precision.tolist())
    assert classification.recall_per_class(confusion).tolist() == pytest.approx(recall.tolist())
    assert classification.f1_per_class(confusion).tolist() == pytest.approx(f1.tolist())


def test_macro_scores__treat_absent_classes_as_scikit_learn_does() -> None:
    target, prediction = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 2, 1, 1])  # 2 is predicted only, 3 is nowhere
    confusion = confusion_matrix(prediction, target, 4)
    assert classification.macro_accuracy(confusion) == pytest.approx(0.75)
    assert classification.macro_f1(confusion) == pytest.approx(
        sklearn_metrics.f1_score(target, prediction, average="macro", zero_division=0)
    )


def test_accuracy__counts_a_prediction_that_is_no_class_as_wrong() -> None:
    confusion = confusion_matrix(torch.tensor([0, -1, 1, -1]), torch.tensor([0, 0, 1, 1]), 2)
    assert classification.accuracy(confusion) == 0.5
    assert classification.macro_accuracy(confusion) == 0.5
    assert classification.f1_per_class(confusion).tolist() == pytest.approx([2 / 3, 2 / 3])


def test_per_class_scores__are_nan_where_a_class_has_no_rows() -> None:
    confusion = confusion_matrix(torch.tensor([0, 1]), torch.tensor([0, 0]), 3)
    assert classification.recall_per_class(confusion).isnan().tolist() == [False, True, True]
    assert classification.precision_per_class(confusion).isnan().tolist() == [False, False, True]
    assert classification.f1_per_class(confusion).isnan().tolist() == [False, False, True]


@pytest.mark.parametrize("score", ["accuracy", "macro_accuracy", "macro_f1"])
def test_classification_scores__without_samples_are_none(score: str) -> None:
    assert getattr(classification, score)(NONE) is None


def test_accuracy__of_counts_beyond_float32_is_exact() -> None:
    confusion = torch.tensor([[2**31 + 1, 1, 0], [0, 0, 0]])
    assert classification.accuracy(confusion) == (2**31 + 1) / (2**31 + 2)


@pytest.mark.parametrize(
    ("prediction", "target", "degenerate"),
    [
        ([1, 1, 1], [0, 1, 1], True),
        ([1, 1, -1], [0, 1, 1], True),
        ([-1, -1, -1], [0, 1, 1], True),
        ([1, 1, 0], [0, 1, 1], False),
        ([1, 1, 1], [1, 1, 1], False),
        ([], [], False),
    ],
)
def test_is_degenerate__means_one_class_for_a_varied_truth(
    prediction: list[int], target: list[int], degenerate: bool
) -> None:
    predicted, true = (torch.tensor(values, dtype=torch.int64) for values in (prediction, target))
    assert classification.is_degenerate(confusion_matrix(predicted, true, 2)) is degenerate
