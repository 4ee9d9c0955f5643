"""Scores of torchmetrics by name: values, merging, options that are refused with a hint."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from sklearn.metrics import jaccard_score
from torch import Tensor

from robustmm import VOID, ConfigError, Metric, ShapeError
from robustmm.config.load import config_from_mapping
from robustmm.plugin_manager import get_plugins

COMPONENT = get_plugins().registry.get("metric", "torchmetrics")
CLASSES = ("a", "b", "c")


def metric(classes: tuple[str, ...] = CLASSES, **options: Any) -> Metric:
    checked = COMPONENT.options.model_validate(options)
    made: Metric = COMPONENT.build(classes=classes, **dict(checked))
    return made


def logits_of(predicted: Tensor, count: int = 3) -> Tensor:
    return 4 * torch.nn.functional.one_hot(predicted, count).float()


PREDICTED = torch.tensor([0, 0, 1, 1, 2, 2, 0, 1])
TARGET = torch.tensor([0, 0, 1, 2, 2, 2, 1, 1])


def config_error(**options: Any) -> str:
    section = {"name": "torchmetrics", **options}
    config = {
        "data": {"dataset": "synthetic"},
        "method": "plain",
        "optimizer": "adamw",
        "train": {"epochs": 1},
        "evaluation": {"metrics": [section]},
    }
    with pytest.raises(ConfigError) as caught:
        config_from_mapping(config, get_plugins().registry)
    return str(caught.value)


def test_torchmetrics__cohen_kappa_equals_the_value_worked_by_hand() -> None:
    # 6 of 8 agree; by chance sum_c true_c predicted_c / 64 = (2*3 + 3*3 + 3*2) / 64 = 21 / 64
    made = metric(metric="MulticlassCohenKappa")
    made.update(logits_of(PREDICTED), TARGET)
    assert made.compute() == pytest.approx((6 / 8 - 21 / 64) / (1 - 21 / 64), abs=1e-6)
    assert made.direction == "max"


def test_torchmetrics__of_batches_and_of_processes_equals_that_of_all_rows() -> None:
    whole, first, other = (metric(metric="MulticlassMatthewsCorrCoef") for _ in range(3))
    whole.update(logits_of(PREDICTED), TARGET)
    with torch.inference_mode():
        first.update(logits_of(PREDICTED[:3]), TARGET[:3])
        other.update(logits_of(PREDICTED[3:5]), TARGET[3:5])
        other.update(logits_of(PREDICTED[5:]), TARGET[5:])
    first.merge(pickle.loads(pickle.dumps(other)))
    assert first.compute() == pytest.approx(whole.compute(), abs=1e-6)


def test_torchmetrics__merges_where_one_process_saw_nothing() -> None:
    full, empty = metric(metric="MulticlassCohenKappa"), metric(metric="MulticlassCohenKappa")
    assert empty.compute() is None
    full.update(logits_of(PREDICTED), TARGET)
    value = full.compute()
    full.merge(empty)
    assert full.compute() == value
    empty.merge(full)
    assert empty.compute() == value


def test_torchmetrics__error_scores_are_better_when_less() -> None:
    made = metric(metric="MulticlassCalibrationError", arguments={"n_bins": 5})
    made.update(logits_of(TARGET) * 100, TARGET)
    assert made.direction == "min"
    assert made.compute() == pytest.approx(0, abs=1e-6)


def test_torchmetrics__binary_scores_take_the_second_class_for_positive() -> None:
    made = metric(("live", "attack"), metric="BinaryRecall")
    made.update(logits_of(torch.tensor([1, 0, 0, 1]), 2), torch.tensor([1, 1, 0, 0]))
    assert made.compute() == 0.5


def test_torchmetrics__binary_scores_refuse_more_classes() -> None:
    with pytest.raises(ConfigError) as caught:
        metric(metric="BinaryRecall")
    assert str(caught.value) == (
        "evaluation.metrics: BinaryRecall is for two classes, there are 3; use MulticlassRecall"
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [("MulticlassMathewsCorrCoef", "MulticlassMatthewsCorrCoef"), ("Accuracy", "MulticlassAccuracy")],
)
def test_torchmetrics__unknown_score_suggests(name: str, meant: str) -> None:
    assert config_error(metric=name) == (
        f"evaluation.metrics.0.metric: expected a score of torchmetrics - did you mean '{meant}'?, got '{name}'"
    )


@pytest.mark.parametrize("name", ["MulticlassConfusionMatrix", "no such thing"])
def test_torchmetrics__lists_scores_where_none_is_close(name: str) -> None:
    text = config_error(metric=name)
    assert text.startswith("evaluation.metrics.0.metric: expected a score of torchmetrics")
    assert "MulticlassConfusionMatrix |" not in text  # it is no single number with a better direction


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"metric": "MulticlassFBetaScore", "arguments": {"beta": -1.0}},
            "the arguments do not fit MulticlassFBetaScore (Expected argument `beta` to be a float larger than 0",
        ),
        (
            {"metric": "MulticlassF1Score", "arguments": {"averag": "macro"}},
            "the arguments do not fit MulticlassF1Score (Unexpected keyword arguments: `averag`)",
        ),
        (
            {"metric": "MulticlassF1Score", "arguments": {"average": "none"}},
            "with these arguments MulticlassF1Score is not one number; choose another 'average'",
        ),
    ],
)
def test_torchmetrics__arguments_are_tried_before_the_run(options: dict[str, Any], text: str) -> None:
    assert config_error(**options).startswith(f"evaluation.metrics.0: {text}")


def test_torchmetrics__label_is_the_class_by_default() -> None:
    assert COMPONENT.options.model_validate({"metric": "MulticlassRecall"}).model_dump()["label"] == "MulticlassRecall"
    given = COMPONENT.options.model_validate({"metric": "MulticlassRecall", "label": "recall"})
    assert given.model_dump()["label"] == "recall"


# Label maps


def maps(seed: int) -> tuple[Tensor, Tensor]:
    """Predictions and labels of three maps, the first with a void column."""
    predicted, target = torch.randint(0, 3, (2, 3, 4, 6), generator=torch.Generator().manual_seed(seed))
    target[0, :, 0] = VOID
    return predicted, target


def dense_logits(predicted: Tensor) -> Tensor:
    return logits_of(predicted).movedim(-1, 1)


def test_torchmetrics__of_maps_counts_their_valid_pixels() -> None:
    predicted, target = maps(0)
    made = metric(metric="MulticlassJaccardIndex")
    made.update(dense_logits(predicted), target)
    valid = target != VOID
    assert made.compute() == pytest.approx(jaccard_score(target[valid], predicted[valid], average="macro"), abs=1e-6)


def test_torchmetrics__mean_iou_is_averaged_over_maps_and_the_classes_in_them() -> None:
    # first map: class 0 is 1 of 2, class 1 is 1 of 2, void left out; second map: class 2 alone, all right
    predicted = torch.tensor([[[0, 0, 1, 2]], [[2, 2, 2, 2]]])
    target = torch.tensor([[[0, 1, 1, VOID]], [[2, 2, 2, 2]]])
    made = metric(metric="MeanIoU")
    made.update(dense_logits(predicted), target)
    assert made.compute() == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert made.direction == "max"


@pytest.mark.parametrize("name", ["DiceScore", "GeneralizedDiceScore", "MeanIoU"])
def test_torchmetrics__of_maps_does_not_see_void_and_merges(name: str) -> None:
    predicted, target = maps(1)
    whole, first, other = (metric(metric=name) for _ in range(3))
    whole.update(dense_logits(predicted), target)
    predicted[0, :, 0] = (predicted[0, :, 0] + 1) % 3
    first.update(dense_logits(predicted[:1]), target[:1])
    other.update(dense_logits(predicted[1:]), target[1:])
    first.merge(pickle.loads(pickle.dumps(other)))
    assert first.compute() == pytest.approx(whole.compute(), abs=1e-6)


def test_torchmetrics__logits_that_are_not_finite_are_of_no_class() -> None:
    logits = dense_logits(torch.tensor([[[0, 1]]]))
    logits[..., 1] = torch.nan
    made = metric(metric="MeanIoU")
    made.update(logits, torch.tensor([[[0, 1]]]))
    assert made.compute() == 0.5


def test_torchmetrics__a_score_of_maps_refuses_labels_of_samples() -> None:
    with pytest.raises(ShapeError, match=r"evaluation\.metrics: MeanIoU is for label maps, the target is 1-D"):
        metric(metric="MeanIoU").update(logits_of(PREDICTED), TARGET)


def test_torchmetrics__scores_of_maps_try_their_arguments_too() -> None:
    assert config_error(metric="MeanIoU", arguments={"per_class": True}).endswith(
        "with these arguments MeanIoU is not one number; choose another 'average'"
    )
