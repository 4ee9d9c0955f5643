"""What is counted for segmentation: the worked example, other libraries, merging, and what has no score."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, jaccard_score
from torch import Tensor
from torchmetrics.functional.classification import multiclass_jaccard_index

from robustmm import VOID, DataError
from robustmm.tasks.segmentation_metrics import SegmentationMetrics

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "metrics.json").read_text())["segmentation"]


def logits_of(prediction: Tensor, count: int) -> Tensor:
    return torch.nn.functional.one_hot(prediction, count).movedim(-1, 1).float()


def counted(prediction: Tensor, target: Tensor, count: int, foreground: int | None = None) -> SegmentationMetrics:
    metrics = SegmentationMetrics(count, foreground=foreground)
    metrics.update(logits_of(prediction, count), target)
    return metrics


def worked_example(count: int) -> SegmentationMetrics:
    """Labels 0, 1, 1, 2, 2, 2, 0, 1, where 0 is void and first class is 1, as a map of two rows."""
    labels = torch.tensor(GOLDEN["labels"]).view(1, 2, 4)
    target = torch.where(labels == 0, VOID, labels - 1)
    return counted(torch.tensor(GOLDEN["predictions"]).view(1, 2, 4), target, count)


def test_scores__of_the_worked_example() -> None:
    metrics = worked_example(3)
    scores = metrics.compute()
    assert scores["miou"] == pytest.approx(0.388889, abs=1e-6)
    assert scores["miou_present"] == pytest.approx(0.583333, abs=1e-6)
    assert scores["pixel_accuracy"] == pytest.approx(0.666667, abs=1e-6)
    assert scores["mean_accuracy"] == pytest.approx(2 / 3)
    assert scores["mean_dice"] == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)
    assert metrics.per_class()["iou"] == pytest.approx([0.5, 0.666667, 0.0], abs=1e-6)
    assert metrics.per_class()["dice"] == pytest.approx([2 / 3, 4 / 5, 0.0])
    assert metrics.count == 1


def test_scores__a_class_seen_nowhere_lowers_miou_alone() -> None:
    metrics, three = worked_example(4), worked_example(3).compute()
    scores = metrics.compute()
    assert scores["miou"] == pytest.approx(0.291667, abs=1e-6)
    assert {name: value for name, value in scores.items() if name != "miou"} == {
        name: value for name, value in three.items() if name != "miou"
    }
    assert metrics.per_class()["iou"][3] is None


def test_scores__agree_with_other_libraries_where_the_rules_do() -> None:
    prediction, target = torch.randint(0, 4, (2, 3, 6, 7), generator=torch.Generator().manual_seed(0))
    metrics = counted(prediction, target, 4)
    scores, flat = metrics.compute(), (target.flatten(), prediction.flatten())
    assert metrics.per_class()["iou"] == pytest.approx(jaccard_score(*flat, average=None).tolist())
    assert scores["miou"] == pytest.approx(multiclass_jaccard_index(prediction, target, 4).item())
    assert scores["mean_dice"] == pytest.approx(f1_score(*flat, average="macro"))
    assert scores["mean_accuracy"] == pytest.approx(balanced_accuracy_score(*flat))


def test_scores__of_parts_merged_from_processes_equal_those_of_the_whole() -> None:
    prediction, target = torch.randint(0, 3, (2, 5, 4, 4), generator=torch.Generator().manual_seed(1))
    target[0] = VOID
    whole, first, other = (
        counted(prediction, target, 3),
        *(counted(prediction[part], target[part], 3) for part in (slice(0, 2), slice(2, 5))),
    )
    first.merge(pickle.loads(pickle.dumps(other)))
    first.merge(SegmentationMetrics(3))
    assert torch.equal(first.confusion, whole.confusion)
    assert first.compute() == whole.compute()
    assert first.count == 5


def test_foreground__its_own_scores_stand_beside_the_means() -> None:
    prediction, target = torch.tensor([[[1, 1, 0, 0]]]), torch.tensor([[[1, 0, 1, VOID]]])
    scores = counted(prediction, target, 2, foreground=1).compute()
    assert [scores["iou"], scores["dice"]] == pytest.approx([1 / 3, 1 / 2])
    assert "iou" not in counted(prediction, target, 2).compute()


def test_foreground__that_is_nowhere_has_no_score() -> None:
    nowhere = torch.zeros(1, 2, 2, dtype=torch.int64)
    scores = counted(nowhere, nowhere, 2, foreground=1).compute()
    assert (scores["iou"], scores["dice"], scores["miou"], scores["miou_present"]) == (None, None, 0.5, 1.0)


def test_scores__of_void_alone_are_none() -> None:
    metrics = counted(torch.zeros(2, 1, 3, dtype=torch.int64), torch.full((2, 1, 3), VOID), 3)
    assert set(metrics.compute().values()) == {None}
    assert metrics.count == 2
    assert not metrics.degenerate


def test_scores__logits_that_are_not_finite_are_wrong_and_degenerate() -> None:
    target = torch.tensor([[[0, 1, 2, VOID]]])
    logits = logits_of(target.clamp_max(2), 3)
    logits[0, :, 0, 3] = math.nan  # void: nobody looks there
    sound, broken = SegmentationMetrics(3), SegmentationMetrics(3)
    sound.update(logits, target)
    assert not sound.degenerate
    logits[0, 1, 0, 0] = -math.inf
    broken.update(logits, target)
    assert broken.degenerate
    assert broken.compute()["pixel_accuracy"] == pytest.approx(2 / 3)


def test_degenerate__means_one_class_for_all_pixels_while_the_truth_has_more() -> None:
    one, two = torch.zeros(1, 1, 4, dtype=torch.int64), torch.tensor([[[0, 0, 1, VOID]]])
    assert counted(one, two, 2).degenerate
    assert not counted(one, one, 2).degenerate
    assert not counted(two.clamp_max(1), two, 2).degenerate


def test_update__names_a_label_that_is_no_class() -> None:
    with pytest.raises(DataError, match=r"label 3 is not a class: labels must be 0\.\.2 or the ignored label 255"):
        counted(torch.zeros(1, 1, 2, dtype=torch.int64), torch.tensor([[[0, 3]]]), 3)
