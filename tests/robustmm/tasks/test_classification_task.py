"""Classification: losses, rows and what is counted."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import Tensor

from robustmm.errors import DataError
from robustmm.tasks.classification import ClassificationTask

CLASSES = ("a", "b", "c")
#: Softmax of each row is (1/2, 1/4, 1/4) up to the order.
LOGITS = torch.tensor([[2.0, 1.0, 1.0], [1.0, 2.0, 1.0], [1.0, 1.0, 2.0], [2.0, 1.0, 1.0]]) * math.log(2)
TARGET = torch.tensor([0, 1, 0, 2])


def test_loss__is_the_mean_cross_entropy() -> None:
    task = ClassificationTask(CLASSES)
    expected = (2 * math.log(2) + 2 * math.log(4)) / 4  # worked by hand from the softmax
    assert task.loss(LOGITS, TARGET).item() == pytest.approx(expected)
    assert task.sample_losses(LOGITS, TARGET).tolist() == pytest.approx([math.log(2)] * 2 + [math.log(4)] * 2)


def test_loss__class_weights_divide_by_the_weights_of_the_batch() -> None:
    task = ClassificationTask(CLASSES, class_weights=(1.0, 2.0, 5.0))
    losses = [math.log(2), 2 * math.log(2), math.log(4), 5 * math.log(4)]
    assert task.sample_losses(LOGITS, TARGET).tolist() == pytest.approx(losses)
    assert task.loss(LOGITS, TARGET).item() == pytest.approx(sum(losses) / (1 + 2 + 1 + 5))


def test_loss__label_smoothing_spreads_over_all_classes() -> None:
    task = ClassificationTask(CLASSES, label_smoothing=0.3)
    expected = 0.8 * math.log(2) + 2 * 0.1 * math.log(4)
    assert task.loss(LOGITS[:1], TARGET[:1]).item() == pytest.approx(expected)


def test_masked_loss__divides_by_the_batch_and_is_zero_without_rows() -> None:
    task = ClassificationTask(CLASSES)
    logits = LOGITS.clone().requires_grad_()
    keep = torch.tensor([True, False, True, False])
    assert task.masked_loss(logits, TARGET, keep).item() == pytest.approx((math.log(2) + math.log(4)) / 4)
    nothing = task.masked_loss(logits, TARGET, torch.zeros(4, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(nothing, logits)
    assert nothing.item() == 0
    assert not gradient.any()


def test_masked_loss__a_row_that_is_not_kept_reaches_neither_loss_nor_gradient() -> None:
    logits = LOGITS.clone()
    logits[1] = math.inf
    logits.requires_grad_()
    loss = ClassificationTask(CLASSES).masked_loss(logits, TARGET, torch.tensor([True, False, True, True]))
    assert loss.isfinite()


def test_loss__is_computed_in_float32() -> None:
    task = ClassificationTask(CLASSES)
    assert task.loss(LOGITS.bfloat16(), TARGET).dtype == torch.float32
    assert task.sample_losses(LOGITS.half(), TARGET).dtype == torch.float32


def test_rows__are_the_samples() -> None:
    rows = ClassificationTask(CLASSES).rows(LOGITS, TARGET)
    assert rows.logits is LOGITS
    assert rows.sample.tolist() == [0, 1, 2, 3]


# What is counted


def counted(task: ClassificationTask, logits: Tensor, target: Tensor, *sizes: int) -> dict[str, float | None]:
    metrics = task.metrics()
    for some, labels in zip(logits.split(list(sizes)), target.split(list(sizes)), strict=True):
        metrics.update(some, labels)
    return metrics.compute()


def test_metrics__do_not_depend_on_the_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(40, 3, generator=generator), torch.arange(40) % 3
    task = ClassificationTask(CLASSES)
    whole = counted(task, logits, target, 40)
    assert set(whole) == set(task.directions)
    assert counted(task, logits, target, 1, 20, 19) == pytest.approx(whole)
    one, other = task.metrics(), task.metrics()
    one.update(logits[:7], target[:7])
    other.update(logits[7:], target[7:])
    one.merge(pickle.loads(pickle.dumps(other)))
    assert one.compute() == pytest.approx(whole)
    assert one.count == 40


def test_metrics__worked_by_hand() -> None:
    scores = counted(ClassificationTask(CLASSES), LOGITS, TARGET, 4)
    assert scores["accuracy"] == 0.5
    assert scores["macro_accuracy"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert scores["macro_f1"] == pytest.approx((0.5 + 1 + 0) / 3)  # a: precision 1/2, recall 1/2; b: 1; c: never found
    assert scores["ece"] == pytest.approx(0.0)  # confidence is 0.5 throughout, and so is accuracy


def test_metrics__one_class_for_everything_is_degenerate() -> None:
    metrics = ClassificationTask(CLASSES).metrics()
    metrics.update(LOGITS[:1].expand(4, 3), TARGET)
    assert metrics.degenerate
    fine = ClassificationTask(CLASSES).metrics()
    fine.update(LOGITS, TARGET)
    assert not fine.degenerate


def test_metrics__logits_that_are_no_numbers_are_degenerate_and_wrong() -> None:
    metrics = ClassificationTask(CLASSES).metrics()
    logits = LOGITS.clone()
    logits[0] = math.nan
    metrics.update(logits, TARGET)
    assert metrics.degenerate
    assert metrics.compute()["accuracy"] == 0.25


def test_metrics__copies_count_apart() -> None:
    metrics = ClassificationTask(CLASSES).metrics()
    metrics.update(LOGITS, TARGET)
    other = copy.deepcopy(metrics)
    other.update(LOGITS, TARGET)
    assert (metrics.count, other.count) == (4, 8)


# Spoofing


def test_spoofing__adds_acer_and_scores_by_it() -> None:
    task = ClassificationTask(("attack", "live"), live_class="live")
    assert (task.score, task.directions["acer"], task.chance()) == ("acer", "min", 0.5)
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0], [2.0, 0.0]])
    scores = counted(task, logits, torch.tensor([0, 0, 0, 1, 1]), 5)
    assert scores["apcer"] == pytest.approx(1 / 3)
    assert scores["bpcer"] == pytest.approx(1 / 2)
    assert scores["acer"] == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_spoofing__collapsed_model_has_acer_one_half_and_no_good_accuracy() -> None:
    task = ClassificationTask(("attack", "live"), live_class="live")
    scores = counted(task, torch.tensor([[1.0, 0.0]]).expand(10, 2), torch.tensor([0] * 9 + [1]), 10)
    assert (scores["acer"], scores["apcer"], scores["bpcer"]) == (0.5, 0.0, 1.0)


# Mistakes


def test_task__refuses_a_live_class_that_is_none_of_two() -> None:
    text = "task.live_class: 'liev' - did you mean 'live'\\? must be one of two classes, the data set has attack, live"
    with pytest.raises(DataError, match=text):
        ClassificationTask(("attack", "live"), live_class="liev")
    with pytest.raises(DataError, match="must be one of two classes, the data set has a, b, c"):
        ClassificationTask(CLASSES, live_class="a")


def test_task__refuses_weights_that_do_not_fit_the_classes() -> None:
    with pytest.raises(DataError, match=r"task\.class_weights: 2 weights for 3 classes"):
        ClassificationTask(CLASSES, class_weights=(1.0, 2.0))


def test_task__weights_are_in_no_checkpoint() -> None:
    assert not ClassificationTask(CLASSES, class_weights=(1.0, 2.0, 3.0)).state_dict()
