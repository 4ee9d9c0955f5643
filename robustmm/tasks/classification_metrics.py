"""What is counted for classification."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from robustmm.metrics.calibration import calibration_bins, expected_calibration_error
from robustmm.metrics.classification import accuracy, is_degenerate, macro_accuracy, macro_f1
from robustmm.metrics.confusion import confusion_matrix, predicted_class
from robustmm.metrics.ranking import macro_auroc
from robustmm.metrics.spoofing import spoofing_errors
from robustmm.tasks.task import Metrics

#: With more classes than this the scores of every sample are not kept, and AUROC is None.
AUROC_CLASSES = 64
#: Logits kept before they are counted: many combinations of a small model are then counted in few calls.
PENDING_VALUES = 1 << 20


class ClassificationMetrics(Metrics):
    """Accuracy, macro accuracy and F1, AUROC, calibration error; APCER, BPCER and ACER where a live class is named.

    Args:
        num_classes: C.
        live: Index of the genuine class of a binary spoofing task; None elsewhere.
    """

    def __init__(self, num_classes: int, *, live: int | None = None) -> None:
        self.num_classes = num_classes
        self.live = live
        self._confusion = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64)
        self._bins: Tensor | float = 0.0
        self._scores: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._pending_values = 0

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch: (B, C) and (B,)."""
        self._pending.append((logits, target))
        self._pending_values += logits.numel()
        if self._pending_values >= PENDING_VALUES:
            self._count()

    def _count(self) -> None:
        if not self._pending:
            return
        logits = torch.cat([logits for logits, _ in self._pending]).float()
        target = torch.cat([target for _, target in self._pending])
        self._pending, self._pending_values = [], 0
        probabilities = logits.softmax(dim=1)
        counts = confusion_matrix(predicted_class(logits), target, self.num_classes).cpu()
        self._confusion = self._confusion + counts  # not in place: inference tensors refuse it
        self._bins = self._bins + calibration_bins(probabilities, target).cpu()
        if self.num_classes <= AUROC_CLASSES:
            self._scores.append(probabilities.cpu())
            self._targets.append(target.cpu())

    @property
    def confusion(self) -> Tensor:  # type: ignore[override]  # counted when asked for
        """(C, C + 1) int64."""
        self._count()
        return self._confusion

    @property
    def count(self) -> int:  # type: ignore[override]  # likewise
        """Samples seen."""
        return int(self.confusion.sum())

    def __getstate__(self) -> dict[str, object]:
        """Counts travel between processes, pending logits do not."""
        self._count()
        return self.__dict__

    def merge(self, other: Metrics) -> None:
        """Add what another process counted."""
        other = cast(ClassificationMetrics, other)
        self._confusion = self.confusion + other.confusion
        self._bins = self._bins + other._bins
        self._scores += other._scores
        self._targets += other._targets

    @property
    def degenerate(self) -> bool:
        """See `Metrics.degenerate`."""
        return is_degenerate(self.confusion) or bool(self.confusion[:, -1].any())

    def compute(self) -> dict[str, float | None]:
        """Scores by name, each in [0, 1]; None where one has no meaning."""
        confusion = self.confusion
        scores: dict[str, float | None] = {
            "accuracy": accuracy(confusion),
            "macro_accuracy": macro_accuracy(confusion),
            "macro_f1": macro_f1(confusion),
            "auroc": macro_auroc(torch.cat(self._scores), torch.cat(self._targets)) if self._scores else None,
            "ece": expected_calibration_error(self._bins) if isinstance(self._bins, Tensor) else None,
        }
        if self.live is not None:
            errors = spoofing_errors(confusion, live=self.live)
            scores |= {"acer": errors.acer, "apcer": errors.apcer, "bpcer": errors.bpcer}
        return scores
