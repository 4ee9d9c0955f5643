"""Intersection over union under both rules for absent classes, Dice and pixel accuracies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score

from robustmm.metrics import segmentation
from robustmm.metrics.confusion import confusion_matrix

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "metrics.json").read_text())["segmentation"]


def golden_confusion(num_classes: int) -> torch.Tensor:
    target = torch.tensor(GOLDEN["labels"]) - 1
    return confusion_matrix(torch.tensor(GOLDEN["predictions"]), target, num_classes, ignore_index=-1)


def test_iou__matches_the_worked_example() -> None:
    confusion = golden_confusion(GOLDEN["num_classes"])
    assert segmentation.iou_per_class(confusion).tolist() == pytest.approx(GOLDEN["iou"], abs=1e-6)
    assert segmentation.mean_iou(confusion) == pytest.approx(GOLDEN["mean_iou_zero"], abs=1e-6)
    assert segmentation.mean_iou(confusion, absent="skip") == pytest.approx(GOLDEN["mean_iou_skip"], abs=1e-6)
    assert segmentation.pixel_accuracy(confusion) == pytest.approx(GOLDEN["pixel_accuracy"], abs=1e-6)
    assert segmentation.mean_accuracy(confusion) == pytest.approx(2 / 3)


def test_mean_iou__counts_a_class_seen_nowhere_as_zero_by_the_esanet_rule_alone() -> None:
    confusion = golden_confusion(GOLDEN["num_classes"] + 1)
    assert segmentation.mean_iou(confusion) == pytest.approx(GOLDEN["mean_iou_zero_with_a_fourth_class"], abs=1e-6)
    assert segmentation.mean_iou(confusion, absent="skip") == pytest.approx(GOLDEN["mean_iou_skip"], abs=1e-6)
    assert segmentation.iou_per_class(confusion)[3].isnan()


def test_iou_and_dice__agree_with_scikit_learn() -> None:
    target, prediction = torch.randint(0, 4, (2, 300), generator=torch.Generator().manual_seed(0))
    confusion = confusion_matrix(prediction, target, 4)
    iou = jaccard_score(target, prediction, average=None)
    dice = f1_score(target, prediction, average=None)
    assert segmentation.iou_per_class(confusion).tolist() == pytest.approx(iou.tolist())
    assert segmentation.dice_per_class(confusion).tolist() == pytest.approx(dice.tolist())
    for absent in ("zero", "skip"):
        assert segmentation.mean_iou(confusion, absent=absent) == pytest.approx(iou.mean())
        assert segmentation.mean_dice(confusion, absent=absent) == pytest.approx(dice.mean())


def test_iou__is_lowered_by_pixels_whose_prediction_is_no_class() -> None:
    confusion = confusion_matrix(torch.tensor([0, -1, 1]), torch.tensor([0, 0, 1]), 2)
    assert segmentation.iou_per_class(confusion).tolist() == [0.5, 1.0]


def test_mean_iou__of_an_image_split_in_parts_is_that_of_the_whole() -> None:
    target, prediction = torch.randint(0, 3, (2, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    parts = sum(confusion_matrix(p, t, 3) for p, t in zip(prediction, target, strict=True))
    assert isinstance(parts, torch.Tensor)
    assert segmentation.mean_iou(parts) == segmentation.mean_iou(confusion_matrix(prediction, target, 3))


@pytest.mark.parametrize("score", ["mean_iou", "mean_dice", "pixel_accuracy", "mean_accuracy"])
def test_segmentation_scores__without_pixels_are_none(score: str) -> None:
    assert getattr(segmentation, score)(torch.zeros(3, 4)) is None
