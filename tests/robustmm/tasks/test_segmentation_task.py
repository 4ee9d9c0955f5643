"""Segmentation: losses with void pixels and weights, rows, and labels brought to other sizes."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from robustmm import VOID, DataError, SegmentationTask
from robustmm.tasks import segmentation

CLASSES = ("wall", "floor", "chair")
LN2, LN4 = math.log(2), math.log(4)
WEIGHTINGS = ("median_frequency", "log")


def maps(labels: list[list[int]]) -> Tensor:
    """(B, 1, W) label maps of one row each."""
    return torch.tensor(labels)[:, None]


def predicting(labels: Tensor, count: int = 3) -> Tensor:
    """Logits whose softmax is 1/2 for the label and 1/4 for the two others."""
    return F.one_hot(labels.clamp_max(count - 1), count).movedim(-1, 1) * LN2


TARGET = maps([[0, 1, VOID], [2, VOID, VOID]])
#: Right, wrong, void; wrong, void, void.
LOGITS = predicting(maps([[0, 2, 1], [0, 0, 0]]))


def gradient_of(loss: Tensor, logits: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, logits)
    return gradient


def test_loss__is_the_mean_over_valid_pixels_of_the_batch() -> None:
    task = SegmentationTask(CLASSES)
    assert task.loss(LOGITS, TARGET).item() == pytest.approx((LN2 + LN4 + LN4) / 3)  # from the softmax, by hand
    assert task.sample_losses(LOGITS, TARGET).tolist() == pytest.approx([(LN2 + LN4) / 2, LN4])


def test_loss__class_weights_are_divided_out_again() -> None:
    task = SegmentationTask(CLASSES, class_weights=(1.0, 2.0, 5.0))
    assert task.loss(LOGITS, TARGET).item() == pytest.approx((LN2 + 2 * LN4 + 5 * LN4) / 8)
    assert task.sample_losses(LOGITS, TARGET).tolist() == pytest.approx([(LN2 + 2 * LN4) / 3, LN4])


def test_loss__equals_that_of_torch_with_weights_and_smoothing() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator, requires_grad=True)
    target = torch.randint(0, 3, (2, 4, 5), generator=generator)
    target[0, :2] = VOID
    weights = torch.tensor([0.5, 1.0, 3.0])
    ours = SegmentationTask(CLASSES, class_weights=weights.tolist(), label_smoothing=0.2).loss(logits, target)
    theirs = F.cross_entropy(logits, target, weights, ignore_index=VOID, label_smoothing=0.2)
    assert ours.item() == pytest.approx(theirs.item())
    torch.testing.assert_close(gradient_of(ours, logits), gradient_of(theirs, logits))


@pytest.mark.parametrize("options", [{}, {"class_weights": (1.0, 2.0, 5.0)}, {"dice_weight": 1.0}])
def test_loss__of_void_alone_is_zero_with_a_gradient_of_zero(options: dict[str, Any]) -> None:
    task = SegmentationTask(CLASSES, **options)
    logits = LOGITS.clone().requires_grad_()
    void = torch.full_like(TARGET, VOID)
    for loss in (task.loss(logits, void), task.sample_losses(logits, void).sum()):
        assert loss.item() == 0
        assert not gradient_of(loss, logits).any()


def test_sample_losses__are_the_losses_of_the_maps_alone() -> None:
    logits, target = torch.randn(3, 3, 2, 4), torch.randint(0, 3, (3, 2, 4))
    target[1, 0], target[2] = VOID, VOID
    task = SegmentationTask(CLASSES, class_weights=(1.0, 2.0, 5.0), label_smoothing=0.1, dice_weight=0.5)
    alone = [task.loss(logits[i : i + 1], target[i : i + 1]).item() for i in range(3)]
    assert task.sample_losses(logits, target).tolist() == pytest.approx(alone, abs=1e-6)
    assert alone[2] == 0


def test_masked_loss__is_that_of_the_kept_samples_as_a_batch() -> None:
    task = SegmentationTask(CLASSES, class_weights=(1.0, 2.0, 5.0), dice_weight=0.5)
    logits = LOGITS.clone().requires_grad_()
    keep = torch.tensor([False, True])
    loss = task.masked_loss(logits, TARGET, keep)
    assert loss.item() == pytest.approx(task.loss(LOGITS[1:], TARGET[1:]).item())
    gradient = gradient_of(loss, logits)
    assert not gradient[0].any()
    assert gradient[1].any()
    nothing = task.masked_loss(logits, TARGET, torch.tensor([False, False]))
    assert nothing.item() == 0
    assert not gradient_of(nothing, logits).any()


def test_loss__dice_is_added_with_its_weight() -> None:
    # Probabilities 1/2, 1/4, 1/4 where the label is 0, and 1/4, 1/2, 1/4 where it is 1; the void pixel counts nowhere.
    # Dice of class 0 and 1: 2 * 1/2 / (1 + 3/4); the third class is not in the truth and adds 0 to the mean of three.
    target = maps([[0, 1, VOID]])
    logits = predicting(maps([[0, 1, 2]]))
    plain, both = (SegmentationTask(CLASSES, dice_weight=weight).loss(logits, target) for weight in (0.0, 0.5))
    assert (both - plain).item() == pytest.approx(0.5 * 2 * (1 - 4 / 7) / 3)


def test_loss__is_computed_in_float32() -> None:
    task = SegmentationTask(CLASSES, class_weights=(1.0, 2.0, 5.0), dice_weight=0.5)
    half = LOGITS.bfloat16()
    assert task.sample_losses(half, TARGET).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = task.loss(half, TARGET)
    assert loss.dtype == torch.float32
    assert loss.item() == task.loss(half.float(), TARGET).item()


def test_loss__is_not_finite_where_logits_are_not() -> None:
    logits = LOGITS.clone()
    logits[0, 0, 0, 0] = math.nan
    assert SegmentationTask(CLASSES).loss(logits, TARGET).isnan()


@pytest.mark.parametrize("label", [3, -1, 254])
def test_loss__refuses_a_label_that_is_no_class(label: int) -> None:
    with pytest.raises(DataError) as caught:
        SegmentationTask(CLASSES).loss(LOGITS, maps([[0, 1, label], [0, 0, 0]]))
    assert str(caught.value) == (f"target: label {label} is not a class: labels must be 0..2, or 255 for void")


def test_loss__off_the_cpu_is_nan_where_a_label_is_no_class(monkeypatch: pytest.MonkeyPatch) -> None:
    task = SegmentationTask(CLASSES, class_weights=(1.0, 2.0, 5.0), dice_weight=0.5)
    wrong = maps([[0, 1, 7], [2, VOID, VOID]])
    expected = task.loss(LOGITS, TARGET).item(), task.sample_losses(LOGITS, TARGET).tolist()
    monkeypatch.setattr(segmentation, "_may_look", lambda target: False)
    assert task.loss(LOGITS, wrong).isnan()
    assert task.sample_losses(LOGITS, wrong).isnan().tolist() == [True, False]
    assert (task.loss(LOGITS, TARGET).item(), task.sample_losses(LOGITS, TARGET).tolist()) == expected


@pytest.mark.gpu
def test_segmentation__gives_on_a_gpu_what_it_gives_on_the_cpu() -> None:
    task = SegmentationTask(CLASSES, class_weights=(1.0, 2.0, 5.0), dice_weight=0.5)
    losses, metrics = task.loss(LOGITS, TARGET), task.metrics()
    metrics.update(LOGITS, TARGET)
    task.cuda()
    with torch.autocast("cuda", dtype=torch.float16):
        assert task.loss(LOGITS.cuda(), TARGET.cuda()).item() == pytest.approx(losses.item())
        assert task.loss(LOGITS.cuda(), maps([[0, 1, 7], [2, VOID, VOID]]).cuda()).isnan()
    there = task.metrics()
    there.update(LOGITS.cuda(), TARGET.cuda())
    assert there.confusion.is_cuda
    assert there.compute() == metrics.compute()


def test_loss_over__sums_scales_each_with_the_label_at_its_size() -> None:
    task = SegmentationTask(CLASSES)
    target = torch.tensor([[[0, 1], [2, 2]]])
    fine, coarse = torch.randn(1, 3, 2, 2), torch.randn(1, 3, 1, 1)
    expected = task.loss(fine, target) + F.cross_entropy(coarse, torch.tensor([[[0]]]))
    assert task.loss_over([fine, coarse], target).item() == pytest.approx(expected.item())


def test_rows__are_the_valid_pixels_with_their_maps() -> None:
    logits = torch.arange(18.0).view(2, 3, 1, 3)
    rows = SegmentationTask(CLASSES).rows(logits, TARGET)
    assert rows.logits.tolist() == [[0, 3, 6], [1, 4, 7], [9, 12, 15]]
    assert rows.target.tolist() == [0, 1, 2]
    assert rows.sample.tolist() == [0, 0, 1]


@pytest.mark.parametrize("size", [(60, 80), (30, 40), (15, 20), (120, 160), (240, 320), (7, 33)])
def test_at__takes_the_pixels_of_nearest_resizing(size: tuple[int, int]) -> None:
    target = torch.randint(0, 40, (2, 120, 160), generator=torch.Generator().manual_seed(0))
    theirs = F.interpolate(target[:, None].double(), size, mode="nearest")[:, 0].long()
    assert torch.equal(SegmentationTask(CLASSES).at(target, size), theirs)


def test_at__gives_the_same_map_where_the_size_is_right() -> None:
    assert SegmentationTask(CLASSES).at(TARGET, (1, 3)) is TARGET


# Class weights from the training labels


def fitted(weighting: str, targets: list[Tensor], classes: tuple[str, ...] = CLASSES) -> list[float]:
    task = SegmentationTask(classes, class_weights=weighting)  # type: ignore[arg-type]  # a parametrised word
    assert task.needs_targets
    task.fit(iter(targets))
    assert task.class_weights is not None
    assert task.class_weights.isfinite().all()
    weights: list[float] = task.class_weights.tolist()
    return weights


def test_median_frequency__gives_the_worked_example() -> None:
    # Frequencies .6, .6 and .2: the third class has 2 of 10 pixels in each map; void pixels are pixels of a map.
    first, other = (torch.tensor([[label] * 6 + [2] * 2 + [VOID] * 2]) for label in (0, 1))
    assert fitted("median_frequency", [first, other]) == pytest.approx([1, 1, 3])


def test_median_frequency__takes_the_mean_of_the_middle_two_as_numpy_has_it() -> None:
    target = torch.tensor([[0] * 1 + [1] * 2 + [2] * 3 + [3] * 4])
    weights = fitted("median_frequency", [target], ("a", "b", "c", "d"))
    assert weights == pytest.approx([2.5, 2.5 / 2, 2.5 / 3, 2.5 / 4])


def test_median_frequency__of_a_class_that_never_occurs_is_one() -> None:
    assert fitted("median_frequency", [torch.tensor([[0, 0, 0, 1]])]) == pytest.approx([0.5 / 0.75, 0.5 / 0.25, 1])
    assert fitted("median_frequency", [torch.tensor([[VOID]])]) == [1, 1, 1]


def test_log__uses_the_share_of_valid_pixels() -> None:
    weights = fitted("log", [torch.tensor([[0, 0, 0, 1, VOID]])])
    assert weights == pytest.approx([1 / math.log(1.77), 1 / math.log(1.27), 1 / math.log(1.02)])


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_fit__weights_the_loss_and_travels_with_copies_but_is_not_saved(weighting: str) -> None:
    task = SegmentationTask(CLASSES, class_weights=weighting)  # type: ignore[arg-type]  # a parametrised word
    task.fit([torch.tensor([[0, 0, 0, 1, 2, 2]])])
    assert task.class_weights is not None
    given = SegmentationTask(CLASSES, class_weights=task.class_weights.tolist())
    assert copy.deepcopy(task).loss(LOGITS, TARGET).item() == given.loss(LOGITS, TARGET).item()
    assert not task.state_dict()


def test_fit__names_the_map_whose_label_is_no_class() -> None:
    with pytest.raises(DataError, match=r"training label map 1: label 7 is not a class: labels must be 0\.\.2, or 255"):
        fitted("log", [torch.tensor([[0]]), torch.tensor([[7]])])


def test_loss__asks_for_fit_where_weights_come_from_labels() -> None:
    task = SegmentationTask(CLASSES, class_weights="log")
    with pytest.raises(DataError, match=r"log needs the training labels; call fit\(\) before loss\(\)"):
        task.loss(LOGITS, TARGET)
    assert not SegmentationTask(CLASSES, class_weights=(1.0, 1.0, 1.0)).needs_targets


# Options that do not fit


@pytest.mark.parametrize(
    ("classes", "options", "error"),
    [
        (CLASSES, {"class_weights": (1.0, 2.0)}, "task.class_weights: 2 weights for 3 classes"),
        (
            CLASSES,
            {"foreground": "chair"},
            "task.foreground: 'chair' must be one of two classes, the data set has wall, floor, chair",
        ),
        (
            ("rest", "road"),
            {"foreground": "raod"},
            "task.foreground: 'raod' - did you mean 'road'? must be one of two classes, the data set has rest, road",
        ),
        (
            CLASSES,
            {"ignore_index": 0},
            "task.ignore_index: 0 is the label of class 'wall'; void needs a label that is not 0..2",
        ),
    ],
)
def test_options_that_do_not_fit_the_classes_are_refused(
    classes: tuple[str, ...], options: dict[str, Any], error: str
) -> None:
    with pytest.raises(DataError) as caught:
        SegmentationTask(classes, **options)
    assert str(caught.value) == error


def test_foreground__its_iou_stands_for_the_model() -> None:
    task = SegmentationTask(("rest", "road"), foreground="road")
    assert task.score == "iou"
    assert task.directions["dice"] == "max"
    assert SegmentationTask(("rest", "road")).score == "miou"
