"""A class for every pixel."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from robustmm.errors import DataError, RobustmmError, did_you_mean
from robustmm.losses.precision import full_precision
from robustmm.metrics.calibration import bins_by_group
from robustmm.metrics.confusion import predicted_class
from robustmm.tasks.class_weights import checked_labels, count_pixels, log_frequency, median_frequency
from robustmm.tasks.segmentation_metrics import SegmentationMetrics
from robustmm.tasks.task import Rows, Task
from robustmm.types import VOID

Direction = Literal["max", "min"]
#: How class weights are had from the training labels.
WEIGHTINGS = {"median_frequency": median_frequency, "log": log_frequency}


class SegmentationTask(Task):
    """One label per pixel; cross-entropy over the valid pixels of a batch, and soft Dice beside it where asked for.

    The loss is the weighted sum over pixels divided by the summed weights of their labels, so that void pixels, in
    whatever number, change nothing; without a valid pixel it is 0 and has a gradient of 0.

    A label that is neither a class nor void is an error on the CPU. On another device, where looking at labels would
    wait for it, the loss is NaN, which ends the run.

    Args:
        classes: Class names; index = label.
        ignore_index: Label of void pixels.
        class_weights: ``median_frequency`` or ``log`` takes weights from the training labels (see `fit`); numbers are
            the weights; None weighs all alike.
        label_smoothing: Share of the target mass spread over all classes, in [0, 1).
        dice_weight: Of the soft Dice loss that is added to the cross-entropy. That is one minus the Dice coefficient
            of the probabilities over all valid pixels of the batch, averaged over all classes; a class that the batch
            lacks adds 0.
        foreground: One of two classes, whose IoU and Dice become the scores ``iou`` and ``dice``; ``iou`` then stands
            for the model instead of ``miou``.

    Raises:
        DataError: the weights do not fit the classes, the foreground is not one of two, or the void label is a class.
        RobustmmError: Dice is asked for and segmentation-models-pytorch cannot be imported.

    Source:
        The cross-entropy and its weighting are those of TUI-NICR/ESANet, where a batch without valid pixels is 0 / 0.
    """

    default_head = "unet"
    dense = True

    class_weights: Tensor | None

    def __init__(
        self,
        classes: Sequence[str],
        *,
        ignore_index: int = VOID,
        class_weights: Literal["median_frequency", "log"] | Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        dice_weight: float = 0.0,
        foreground: str | None = None,
    ) -> None:
        super().__init__(classes)
        if 0 <= ignore_index < len(self.classes):
            raise DataError(
                f"task.ignore_index: {ignore_index} is the label of class '{self.classes[ignore_index]}'; void needs a "
                f"label that is not 0..{len(self.classes) - 1}"
            )
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.weighting = class_weights if isinstance(class_weights, str) else None
        self.needs_targets = self.weighting is not None
        given = None if class_weights is None or isinstance(class_weights, str) else torch.tensor(class_weights)
        if given is not None and len(given) != len(self.classes):
            raise DataError(f"task.class_weights: {len(given)} weights for {len(self.classes)} classes")
        self.register_buffer("class_weights", given, persistent=False)
        self.dice_weight = dice_weight
        self._soft_dice = _dice_loss(ignore_index) if dice_weight > 0 else None
        self.foreground = self._foreground_index(foreground)
        self.score = "miou" if self.foreground is None else "iou"
        names = ["miou", "miou_present", "pixel_accuracy", "mean_accuracy", "mean_dice"]
        names += [] if self.foreground is None else ["iou", "dice"]
        self.directions: dict[str, Direction] = dict.fromkeys(names, "max")

    def _foreground_index(self, foreground: str | None) -> int | None:
        if foreground is None:
            return None
        if len(self.classes) != 2 or foreground not in self.classes:
            hint = "" if foreground in self.classes else did_you_mean(foreground, self.classes)
            raise DataError(
                f"task.foreground: '{foreground}'{hint} must be one of two classes, the data set has "
                f"{', '.join(self.classes)}"
            )
        return self.classes.index(foreground)

    def fit(self, targets: Iterable[Tensor]) -> None:
        """Take class weights from training label maps (H, W), which are counted one by one and not kept."""
        if self.weighting is not None:
            counts = count_pixels(targets, self.num_outputs, ignore_index=self.ignore_index)
            device = next((buffer.device for buffer in self.buffers()), None)
            self.class_weights = WEIGHTINGS[self.weighting](counts).to(device)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Weighted mean over the valid pixels of the batch; (B, C, H, W) and (B, H, W)."""
        target, wrong = self._checked(target)
        losses, weights = self._pixel_losses(logits, target)
        loss = _ratio(losses.sum(), weights.sum())
        if self._soft_dice is not None:
            with full_precision(logits) as (logits,):
                loss = loss + self.dice_weight * self._soft_dice(logits, target)
        return loss if wrong is None else loss.masked_fill(wrong.any(), torch.nan)

    def sample_losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of each label map by itself, (B,); 0 for one without valid pixels."""
        target, wrong = self._checked(target)
        losses, weights = self._pixel_losses(logits, target)
        own = _ratio(losses.flatten(1).sum(dim=1), weights.flatten(1).sum(dim=1))
        if self._soft_dice is not None:
            with full_precision(logits) as (logits,):
                own = own + self.dice_weight * torch.vmap(self._soft_dice)(logits[:, None], target[:, None])
        return own if wrong is None else own.masked_fill(wrong.flatten(1).any(dim=1), torch.nan)

    def masked_loss(self, logits: Tensor, target: Tensor, keep: Tensor) -> Tensor:
        """The loss of the kept samples as a batch of their own, so divided by their weights alone.

        Source:
            MMANet's segmentation code, which calls ESANet's loss on the sub-batch.
        """
        return self.loss(logits, target.masked_fill(~keep[:, None, None], self.ignore_index))

    def subset_loss(self, logits: Tensor, target: Tensor, keep: Tensor) -> Tensor:
        """See `Task.subset_loss`: `masked_loss`, which is divided by the kept samples' pixels alone."""
        return self.masked_loss(logits, target, keep)

    def _checked(self, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """The labels, and off the CPU where they are wrong; there an index out of range would end the process.

        Raises:
            DataError: on the CPU, a label is neither a class nor void.
        """
        if _may_look(target):
            checked_labels(target, self.num_outputs, self.ignore_index, "target")
            return target, None
        wrong = (target != self.ignore_index) & ((target < 0) | (target >= self.num_outputs))
        return target.masked_fill(wrong, self.ignore_index), wrong

    def _pixel_losses(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted cross-entropy and weight of each pixel, both (B, H, W) and 0 where void."""
        if self.weighting is not None and self.class_weights is None:
            raise DataError(f"task.class_weights: {self.weighting} needs the training labels; call fit() before loss()")
        valid = target != self.ignore_index
        with full_precision(logits) as (logits,):
            by_class = None if self.class_weights is None else self.class_weights.to(logits)
            losses = F.cross_entropy(
                logits,
                target,
                weight=by_class,
                ignore_index=self.ignore_index,
                label_smoothing=self.label_smoothing,
                reduction="none",  # the reduced forms are not deterministic on a GPU
            )
            if by_class is None:
                return losses, valid.to(losses.dtype)
            return losses, by_class[target.masked_fill(~valid, 0)] * valid

    def at(self, target: Tensor, size: tuple[int, ...]) -> Tensor:
        """The label of the nearest pixel up and left of each position, (B, h, w).

        Position i of h is pixel floor(i H / h), in whole numbers. Where H is a multiple of h this is what nearest
        resizing gives in OpenCV (ESANet's choice) and in torch, whose other scales may be rounded off by one pixel.
        """
        if tuple(target.shape[1:]) == tuple(size):
            return target
        row, column = (
            torch.arange(new, device=target.device) * old // new
            for new, old in zip(size, target.shape[1:], strict=True)
        )
        return target[:, row[:, None], column]

    def rows(self, logits: Tensor, target: Tensor) -> Rows:
        """The valid pixels, map by map. Their number is not known before: on a GPU this waits for the device once."""
        place = (target != self.ignore_index).nonzero(as_tuple=True)
        return Rows(logits.movedim(1, -1)[place], target[place], place[0])

    def metrics(self) -> SegmentationMetrics:
        """Fresh counters."""
        return SegmentationMetrics(self.num_outputs, ignore_index=self.ignore_index, foreground=self.foreground)

    def record(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Counts of each map: ``confusion`` (B, C, C + 1) int32 and ``bins`` (B, 15, 3), see `calibration_bins`."""
        classes, size = self.num_outputs, len(target)
        checked_labels(target, classes, self.ignore_index, "target")
        prediction, valid = predicted_class(logits), target != self.ignore_index
        own = torch.arange(size, device=target.device).view(-1, 1, 1)
        # Void pixels are counted for a map that is not there, which is quicker than to pick the others.
        place, label = torch.where(valid, own, size), target.masked_fill(~valid, 0)
        column = torch.where(prediction >= 0, prediction, classes)
        cell = (place * classes + label) * (classes + 1) + column
        counts = cell.flatten().bincount(minlength=(size + 1) * classes * (classes + 1))
        counts = counts.view(size + 1, classes, classes + 1)[:size]
        confidence = logits.float().softmax(dim=1).amax(dim=1)
        right = prediction == target
        bins = bins_by_group(confidence.flatten(), right.flatten(), place.flatten(), size + 1)[:size]
        return {"confusion": counts.to("cpu", torch.int32), "bins": bins.cpu()}

    def count(self, records: Mapping[str, Tensor], target: Tensor) -> SegmentationMetrics:
        """See `Task.count`; records are counts already."""
        metrics = self.metrics()
        metrics.add(records["confusion"])
        return metrics

    def chance(self) -> float:
        """1 / C: the mean accuracy of a constant prediction. Its mIoU is no larger, whatever the classes' shares."""
        return super().chance()


def _may_look(target: Tensor) -> bool:
    """Whether values can be read without waiting for a device."""
    return target.device.type == "cpu"


def _ratio(summed: Tensor, weight: Tensor) -> Tensor:
    """Sums over summed weights; 0, with a gradient of 0, where nothing has a weight."""
    return torch.where(weight > 0, summed / weight.clamp_min(torch.finfo(weight.dtype).tiny), summed * 0)


def _dice_loss(ignore_index: int) -> torch.nn.Module:
    try:
        losses = importlib.import_module("segmentation_models_pytorch.losses")  # takes seconds: only where asked for
    except (ImportError, RuntimeError, OSError) as error:  # the latter two come from a torchvision that does not fit
        raise RobustmmError(
            f"task.dice_weight: Dice is taken from segmentation-models-pytorch, which cannot be imported ({error}); "
            f"install it, or set dice_weight to 0"
        ) from error
    loss: torch.nn.Module = losses.DiceLoss(losses.MULTICLASS_MODE, ignore_index=ignore_index)
    return loss
