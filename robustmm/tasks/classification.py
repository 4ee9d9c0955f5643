"""Classification of whole samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from robustmm.errors import DataError, did_you_mean
from robustmm.tasks.classification_metrics import ClassificationMetrics
from robustmm.tasks.task import Rows, Task

Direction = Literal["max", "min"]


class ClassificationTask(Task):
    """One label per sample, cross-entropy, batch mean.

    Args:
        classes: Class names; index = label.
        label_smoothing: Share of the target mass spread over all classes, in [0, 1).
        class_weights: One weight per class for the loss; None weighs all alike. As in torch, the batch loss is then
            divided by the summed weights of its labels.
        live_class: Name of the genuine class of a binary spoofing task; adds APCER, BPCER and ACER, and makes ACER the
            score.

    Raises:
        DataError: the weights do not fit the classes, or the live class is not one of two.
    """

    default_head = "linear"
    dense = False

    class_weights: Tensor | None

    def __init__(
        self,
        classes: Sequence[str],
        *,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        live_class: str | None = None,
    ) -> None:
        super().__init__(classes)
        self.label_smoothing = label_smoothing
        if class_weights is not None and len(class_weights) != len(self.classes):
            raise DataError(f"task.class_weights: {len(class_weights)} weights for {len(self.classes)} classes")
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)
        self.live = self._live_index(live_class)
        self.score = "accuracy" if self.live is None else "acer"
        self.directions: dict[str, Direction] = {
            "accuracy": "max",
            "macro_accuracy": "max",
            "macro_f1": "max",
            "auroc": "max",
            "ece": "min",
        }
        if self.live is not None:
            self.directions |= {"acer": "min", "apcer": "min", "bpcer": "min"}

    def _live_index(self, live_class: str | None) -> int | None:
        if live_class is None:
            return None
        if len(self.classes) != 2 or live_class not in self.classes:
            raise DataError(
                f"task.live_class: '{live_class}'{did_you_mean(live_class, self.classes)} must be one of two classes, "
                f"the data set has {', '.join(self.classes)}"
            )
        return self.classes.index(live_class)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy, mean over the batch; 0 where every label weighs nothing."""
        smoothing = self.label_smoothing
        if self.class_weights is None:
            return F.cross_entropy(logits.float(), target, label_smoothing=smoothing)
        weight = self.class_weights
        summed = F.cross_entropy(logits.float(), target, weight=weight, label_smoothing=smoothing, reduction="sum")
        total = weight[target].sum()
        return torch.where(total > 0, summed / total.clamp_min(torch.finfo(weight.dtype).tiny), summed * 0)

    def sample_losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of each sample, (B,); class weights multiply it and are not divided out."""
        return F.cross_entropy(
            logits.float(),
            target,
            weight=self.class_weights,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )

    def masked_loss(self, logits: Tensor, target: Tensor, keep: Tensor) -> Tensor:
        """Sum of the kept samples' losses, divided by the batch size and not by their number.

        Source:
            MMANet and DMRNet: (1 / B) sum_i 1[kept] CE_i.
        """
        return self.sample_losses(logits, target).masked_fill(~keep, 0.0).mean()

    def subset_loss(self, logits: Tensor, target: Tensor, keep: Tensor) -> Tensor:
        """See `Task.subset_loss`; with class weights divided by those of the kept labels, as in `loss`."""
        if self.class_weights is None:
            return super().subset_loss(logits, target, keep)
        summed = self.sample_losses(logits, target).masked_fill(~keep, 0.0).sum()
        total = self.class_weights[target].masked_fill(~keep, 0.0).sum()
        return torch.where(total > 0, summed / total.clamp_min(torch.finfo(total.dtype).tiny), summed * 0)

    def rows(self, logits: Tensor, target: Tensor) -> Rows:
        """Every sample is a row."""
        return Rows(logits, target, torch.arange(len(target), device=target.device))

    def metrics(self) -> ClassificationMetrics:
        """Fresh counters."""
        return ClassificationMetrics(len(self.classes), live=self.live)

    def chance(self) -> float:
        """1 / C for accuracies; 0.5 for spoofing errors, where a constant prediction has ACER 0.5."""
        return super().chance() if self.live is None else 0.5
