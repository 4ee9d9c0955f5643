"""What a model says of one sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from robustmm.losses.student_t import split_student_t
from robustmm.methods.method import Method
from robustmm.metrics.confusion import predicted_class
from robustmm.tasks.regression import RegressionTask
from robustmm.tasks.task import Task
from robustmm.types import VOID


@dataclass(frozen=True)
class Prediction:
    """What a model says of one sample; tensors are on the CPU.

    Args:
        id: The sample's name.
        modalities: What was shown to the model, in column order.
        logits: (C,), or (C, H, W) of dense prediction; of regression standardised, see `robustmm.RegressionTask`.
        classes: Class names; of regression the names of the quantities.
        label: Name of the most probable class; None where logits are not finite, in dense prediction and regression.
        probabilities: (C,) or (C, H, W), adding up to 1; None in regression.
        map: (H, W) int64, the most probable class of each pixel, `robustmm.VOID` where logits are not finite; None
            where the prediction is not dense.
        values: Of regression, quantity -> value in the unit of the targets; None elsewhere.
        scales: Likewise the scales of the values, of methods that predict a Student-t; None elsewhere.
        uncertainty: How unsure the prediction is, () or (H, W): the higher the less sure, on a scale of the method's
            own, see `robustmm.Method`; for most one minus the largest probability. None where nothing tells.
    """

    id: str
    modalities: tuple[str, ...]
    logits: Tensor
    classes: tuple[str, ...]
    label: str | None = None
    probabilities: Tensor | None = None
    map: Tensor | None = None
    values: Mapping[str, float] | None = None
    scales: Mapping[str, float] | None = None
    uncertainty: Tensor | None = None

    @property
    def probability(self) -> float | None:
        """Of the label; None in dense prediction and regression."""
        if self.label is None or self.probabilities is None:
            return None
        return float(self.probabilities.max())

    def top(self, count: int) -> list[tuple[str, float]]:
        """The most probable classes with their probabilities; [] in dense prediction and regression."""
        if self.label is None or self.probabilities is None:
            return []
        best = self.probabilities.topk(min(count, len(self.classes)))
        return [(self.classes[place], value) for value, place in zip(*map(Tensor.tolist, best), strict=True)]


def predictions_of(
    method: Method, logits: Tensor, ids: Sequence[str], shown: Sequence[tuple[str, ...]]
) -> list[Prediction]:
    """Logits of a batch, (B, ...), as predictions."""
    logits = logits.detach().float()
    uncertainty = method.uncertainty(logits)
    details = _quantities(method.task, logits) if method.task.continuous else _classes(method, logits)
    unsure: list[Tensor | None] = [None] * len(ids) if uncertainty is None else list(uncertainty.cpu())
    return [
        Prediction(id_, names, own, method.task.classes, uncertainty=doubt, **detail)  # type: ignore[arg-type]  # by name
        for id_, names, own, doubt, detail in zip(ids, shown, logits.cpu(), unsure, details, strict=True)
    ]


def _classes(method: Method, logits: Tensor) -> list[dict[str, object]]:
    best, probabilities = predicted_class(logits).cpu(), logits.softmax(dim=1).cpu()
    if method.task.dense:
        maps = best.masked_fill(best < 0, VOID)
        return [{"map": own, "probabilities": shares} for own, shares in zip(maps, probabilities, strict=True)]
    names = [*method.task.classes, None]  # -1, where logits are not finite, is the last
    return [
        {"label": names[place], "probabilities": shares}
        for place, shares in zip(best.tolist(), probabilities, strict=True)
    ]


def _quantities(task: Task, logits: Tensor) -> list[dict[str, object]]:
    if not isinstance(task, RegressionTask):
        return [{} for _ in logits]  # of a continuous task that is not ours the logits alone are known
    named = [dict(zip(task.classes, row, strict=True)) for row in task.predict(logits).cpu().tolist()]
    distribution = split_student_t(logits, task.num_outputs)
    if distribution is None:
        return [{"values": own} for own in named]
    scales = (task.deviation * distribution.log_scale.exp()).cpu().tolist()
    return [
        {"values": own, "scales": dict(zip(task.classes, row, strict=True))}
        for own, row in zip(named, scales, strict=True)
    ]
