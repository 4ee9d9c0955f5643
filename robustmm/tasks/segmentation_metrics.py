"""What is counted for segmentation."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from robustmm.metrics.classification import is_degenerate, macro_f1
from robustmm.metrics.confusion import confusion_matrix, predicted_class
from robustmm.metrics.segmentation import dice_per_class, iou_per_class, mean_accuracy, mean_iou, pixel_accuracy
from robustmm.tasks.task import Metrics
from robustmm.types import VOID


class SegmentationMetrics(Metrics):
    """Intersection over union, Dice and accuracies from one confusion matrix over the valid pixels of the whole split.

    The matrix stays on the device of the logits; its counts are whole numbers, so batches and processes add up exactly.

    Args:
        num_classes: C.
        ignore_index: Label of pixels that are not counted.
        foreground: Index of the class whose own IoU and Dice are scores, in a task of two classes; None elsewhere.
    """

    def __init__(self, num_classes: int, *, ignore_index: int = VOID, foreground: int | None = None) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.foreground = foreground
        self.confusion = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64)
        self.count = 0

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch: (B, C, H, W) and (B, H, W).

        Raises:
            DataError: a label is neither a class nor ``ignore_index``.
        """
        prediction = predicted_class(logits)
        counts = confusion_matrix(prediction, target, self.num_classes, ignore_index=self.ignore_index)
        self.confusion = self.confusion.to(counts.device) + counts  # not in place: inference tensors refuse it
        self.count += len(target)

    def add(self, confusion: Tensor) -> None:
        """Add maps that have been counted, (B, C, C + 1)."""
        self.confusion = self.confusion.to(confusion.device) + confusion.sum(dim=0, dtype=torch.int64)
        self.count += len(confusion)

    def __getstate__(self) -> dict[str, Any]:
        """Counts travel between processes on the CPU."""
        return self.__dict__ | {"confusion": self.confusion.cpu()}

    def merge(self, other: Metrics) -> None:
        """Add what another process counted."""
        other = cast(SegmentationMetrics, other)
        self.confusion = self.confusion.cpu() + other.confusion.cpu()
        self.count += other.count

    @property
    def degenerate(self) -> bool:
        """See `Metrics.degenerate`."""
        confusion = self.confusion.cpu()
        return is_degenerate(confusion) or bool(confusion[:, -1].any())

    def compute(self) -> dict[str, float | None]:
        """Scores by name, each in [0, 1]; None without valid pixels.

        ``miou`` is the mean over all C classes, where one that neither truth nor prediction has counts as 0 (the rule
        of ESANet and its followers); ``miou_present`` is over the classes that the truth has; ``mean_accuracy``
        likewise; ``mean_dice`` is over the classes that truth or prediction has, which makes it the macro F1.
        """
        confusion = self.confusion.cpu()
        scores = {
            "miou": mean_iou(confusion),
            "miou_present": mean_iou(confusion, absent="skip"),
            "pixel_accuracy": pixel_accuracy(confusion),
            "mean_accuracy": mean_accuracy(confusion),
            "mean_dice": macro_f1(confusion),
        }
        if self.foreground is not None:
            scores |= {name: values[self.foreground] for name, values in self.per_class().items()}
        return scores

    def per_class(self) -> dict[str, list[float | None]]:
        """``iou`` and ``dice`` of each class; None for a class that neither truth nor prediction has."""
        confusion = self.confusion.cpu()
        return {"iou": _known(iou_per_class(confusion)), "dice": _known(dice_per_class(confusion))}


def _known(values: Tensor) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]  # NaN differs from itself
