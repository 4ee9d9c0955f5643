"""The contract of a task: what is predicted, how it is penalised and how it is scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

Direction = Literal["max", "min"]
#: What a constant prediction has at least in a metric of which less is better, where that is an error rate.
DEGENERATE_ERROR = 0.5


class Rows(NamedTuple):
    """Predictions and targets, one per row: a sample, or a valid pixel.

    Args:
        logits: (R, C).
        target: (R,) int64; float of a continuous task, (R,) or (R, T).
        sample: (R,) int64, the batch row that each row belongs to.
    """

    logits: Tensor
    target: Tensor
    sample: Tensor


class Metrics(ABC):
    """Scores over a split: counts are added up batch by batch and divided once.

    Attributes:
        confusion: (C, C + 1) int64, rows = truth; the last column counts predictions that are not a class because the
            logits were not finite. Those of a continuous task have none.
        count: Samples seen.
    """

    confusion: Tensor
    count: int

    @abstractmethod
    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch."""

    @abstractmethod
    def merge(self, other: Metrics) -> None:
        """Add what another process counted."""

    @abstractmethod
    def compute(self) -> dict[str, float | None]:
        """Scores by name; None where one has no meaning (AUROC with one class, say)."""

    def per_class(self) -> dict[str, list[float | None]]:
        """Scores of each class by name, in the order of the classes, for the result file; None as in `compute`."""
        return {}

    @property
    @abstractmethod
    def degenerate(self) -> bool:
        """One class or value predicted for everything, or non-finite logits, while the truth has more than one."""


class Task(nn.Module, ABC):
    """What is predicted. Weights of its loss are buffers that are not saved; what predictions depend on is saved.

    Attributes:
        classes: Class names; index = label. Of a continuous task the names of the quantities that are predicted.
        score: Name of the metric that stands for a model, as in selection and summaries.
        directions: Metric -> whether ``max`` or ``min`` is better.
        default_head: Registered name of the head that fits.
        dense: Whether the target has spatial axes.
        continuous: Whether targets are float quantities, () or (T,) per sample, in place of labels.
        needs_targets: Whether `fit` is to be called before training.
    """

    score: str
    directions: dict[str, Direction]
    default_head: str
    dense: bool
    continuous: bool = False
    needs_targets: bool = False

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = tuple(classes)

    @property
    def num_outputs(self) -> int:
        """Channels of the logits."""
        return len(self.classes)

    def fit(self, targets: Iterable[Tensor]) -> None:
        """Learn class weights, say, from all targets of training, one by one, where `needs_targets` says so."""

    @abstractmethod
    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The task's loss over a batch, a scalar."""

    def at(self, target: Tensor, size: tuple[int, ...]) -> Tensor:
        """The target for logits of another spatial size; as it stands, for logits without one, the target itself."""
        return target

    def loss_over(self, scales: Sequence[Tensor], target: Tensor, keep: Tensor | None = None) -> Tensor:
        """The sum of the losses of several logits, (B, C, h, w) each at a size of its own; of one as of `loss`.

        Args:
            scales: Logits, the finest first.
            target: Of the whole batch, at its own size.
            keep: (B,) bool; where given, `subset_loss` takes the place of `loss`.
        """
        pairs = [(logits, self.at(target, tuple(logits.shape[2:]))) for logits in scales]
        losses = [self.loss(*pair) if keep is None else self.subset_loss(*pair, keep) for pair in pairs]
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    @abstractmethod
    def sample_losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of each sample, (B,); a sample without a valid row has 0."""

    @abstractmethod
    def masked_loss(self, logits: Tensor, target: Tensor, keep: Tensor) -> Tensor:
        """The loss of the kept samples alone, keep (B,) bool; 0, with a gradient of 0, where none is kept."""

    def subset_loss(self, logits: Tensor, target: Tensor, keep: Tensor) -> Tensor:
        """The loss of the kept samples as a batch of their own; 0, with a gradient of 0, where none is kept."""
        losses = self.sample_losses(logits, target).masked_fill(~keep, 0.0)
        return losses.sum() / keep.sum().clamp_min(1)

    @abstractmethod
    def rows(self, logits: Tensor, target: Tensor) -> Rows:
        """Logits and labels by row; invalid rows are left out."""

    @abstractmethod
    def metrics(self) -> Metrics:
        """Fresh counters."""

    def record(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """What scores need of each sample, name -> (B, ...) on the CPU; as it stands the logits themselves.

        Records are kept, so that samples can be counted again in other selections; see `count`.
        """
        return {"logits": logits.float().cpu()}

    def count(self, records: Mapping[str, Tensor], target: Tensor) -> Metrics:
        """The counters of recorded samples.

        Args:
            records: As `record` gave them, over any choice of samples.
            target: Of the same samples, on the CPU.
        """
        metrics = self.metrics()
        if len(target):
            metrics.update(records["logits"], target)
        return metrics

    def uncertainty(self, logits: Tensor) -> Tensor | None:
        """How unsure each prediction is, (B,) or (B, H, W), any scale, higher = less sure; None where nothing tells.

        As it stands one minus the largest probability.
        """
        return None if self.continuous else 1 - logits.float().softmax(dim=1).amax(dim=1)

    def chance(self) -> float:
        """The value of `score` that a constant prediction reaches on balanced classes."""
        return 1 / self.num_outputs

    def chances(self, directions: Mapping[str, str]) -> dict[str, float | None]:
        """What a constant prediction deserves in each metric; None where that cannot be told.

        As it stands `chance` where more is better, and `DEGENERATE_ERROR`, as of an error rate, where less is.

        Args:
            directions: Of the task's metrics and of plugins'.
        """
        return {name: self.chance() if way == "max" else DEGENERATE_ERROR for name, way in directions.items()}

    def target_size(self, target: Tensor) -> tuple[int, ...]:
        """Spatial size of the target, () for global prediction."""
        return tuple(target.shape[1:])
