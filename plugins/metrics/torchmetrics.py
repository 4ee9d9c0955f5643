"""Any classification score of torchmetrics that is one number and knows which way is better, and scores of maps."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType
from typing import Any, Self, cast

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from robustmm import Component, ConfigError, Metric, Options, ShapeError, did_you_mean, hookimpl, predicted_class

from ._rows import rows_of

#: Classes of the score that is made on trial; many, so that an argument such as top_k finds enough.
TRIAL_CLASSES = 64
#: Scores of label maps, which are averaged over maps. HausdorffDistance is not among them: in torchmetrics 1.9 it is
#: wrong or fails on maps that are not square, fails where a class is in neither truth nor prediction, and is infinite
#: where it is in one of them.
MAP_SCORES = ("DiceScore", "GeneralizedDiceScore", "MeanIoU")


def _library(module: str = "classification") -> ModuleType:
    return importlib.import_module(f"torchmetrics.{module}")  # takes seconds: only where it is asked for


@cache
def scores() -> tuple[str, ...]:
    """Names of the classes that can be asked for."""
    library = _library()
    of_rows = (
        name
        for name in dir(library)
        if name.startswith(("Multiclass", "Binary")) and getattr(library, name).higher_is_better is not None
    )
    return tuple(sorted((*of_rows, *MAP_SCORES)))


def make_score(metric: str, arguments: dict[str, Any], num_classes: int) -> Any:
    """A torchmetrics object that leaves the merging of processes to us.

    Raises:
        TypeError, ValueError: the arguments are not those of the class.
    """
    counted = {} if metric.startswith("Binary") else {"num_classes": num_classes}
    library = _library("segmentation" if metric in MAP_SCORES else "classification")
    return getattr(library, metric)(**counted, **arguments, sync_on_compute=False, compute_with_cache=False)


def as_predictions(metric: str, logits: Tensor) -> Tensor:
    """What a class takes: probabilities (R, C), or those of the second class, (R,)."""
    probabilities = logits.softmax(dim=1)
    return probabilities[:, 1] if metric.startswith("Binary") else probabilities


def as_layers(labels: Tensor, shown: Tensor, num_classes: int) -> Tensor:
    """One layer of 0 and 1 per class, (B, C, H, W) uint8; all 0 where a position is not ``shown``."""
    classes = torch.arange(num_classes).view(-1, 1, 1)
    return ((labels[:, None] == classes) & shown[:, None]).to(torch.uint8)


def unfit(metric: str, arguments: dict[str, Any]) -> str | None:
    """What is wrong with the arguments of a score, found by computing it once; None if nothing is."""
    classes = 2 if metric.startswith("Binary") else TRIAL_CLASSES
    try:
        score = make_score(metric, arguments, classes)
        if metric in MAP_SCORES:
            layers = torch.eye(classes, dtype=torch.uint8)[None, :, None]
            score.update(layers, layers)
        else:
            score.update(as_predictions(metric, torch.eye(classes)), torch.arange(classes))
        value = score.compute()
    except (TypeError, ValueError, RuntimeError) as error:
        return f"the arguments do not fit {metric} ({' '.join(str(error).split())})"
    if not isinstance(value, Tensor) or value.ndim:
        return f"with these arguments {metric} is not one number; choose another 'average'"
    return None


class TorchmetricsOptions(Options):
    """Options of the score.

    Args:
        metric: Class in ``torchmetrics.classification``, such as MulticlassMatthewsCorrCoef; Binary... for two classes,
            where the second class is the positive one. For label maps also one of ``torchmetrics.segmentation``:
            DiceScore, GeneralizedDiceScore or MeanIoU, where a void pixel is of no class.
        arguments: Of the class, without ``num_classes``.
        label: Name in results and in ``train.select.metric``.
    """

    metric: str = Field(description="class of torchmetrics, such as MulticlassMatthewsCorrCoef, or MeanIoU for maps")
    arguments: dict[str, Any] = Field(default_factory=dict, description="of the class, without num_classes")
    label: str | None = Field(None, min_length=1, description="name in results; by default the class")

    @classmethod
    def contract_example(cls) -> dict[str, Any]:
        """A score without arguments."""
        return {"metric": "MulticlassMatthewsCorrCoef"}

    @model_validator(mode="before")
    @classmethod
    def _label_by_default(cls, data: Any) -> Any:
        named = isinstance(data, dict) and isinstance(data.get("metric"), str) and data.get("label") is None
        return {**data, "label": data["metric"]} if named else data

    @field_validator("metric")
    @classmethod
    def _exists(cls, metric: str) -> str:
        if metric in scores():
            return metric
        longer = "Multiclass" + metric
        hint = f" - did you mean '{longer}'?" if longer in scores() else did_you_mean(metric, scores())
        raise ValueError(f"expected a score of torchmetrics{hint or ': ' + ' | '.join(scores())}")

    @model_validator(mode="after")
    def _works(self) -> Self:
        problem = unfit(self.metric, self.arguments)
        if problem:
            raise ValueError(problem)
        return self


class Torchmetrics(Metric):
    """A score of torchmetrics.

    Args:
        classes: Class names; index = label.
        metric: Name of the class.
        arguments: Of the class.
        label: Unused here; the name in results.

    Raises:
        ConfigError: a binary score is asked of more than two classes.
    """

    def __init__(self, classes: Sequence[str], *, metric: str, arguments: dict[str, Any], label: str | None) -> None:
        super().__init__(classes)
        if metric.startswith("Binary") and len(self.classes) != 2:
            other = metric.replace("Binary", "Multiclass")
            hint = f"; use {other}" if other in scores() else ""
            raise ConfigError([f"evaluation.metrics: {metric} is for two classes, there are {len(self.classes)}{hint}"])
        self._metric = metric
        self._rows = 0
        quick: dict[str, Any] = {} if metric in MAP_SCORES else {"validate_args": False}
        self._score = make_score(metric, quick | arguments, len(self.classes))
        self.direction = "max" if self._score.higher_is_better else "min"

    def update(self, logits: Tensor, target: Tensor) -> None:
        """See `Metric.update`."""
        if self._metric in MAP_SCORES:
            self._update_maps(logits, target)
            return
        logits, target = rows_of(logits, target)
        self._rows += len(target)
        if len(target):
            self._score.update(as_predictions(self._metric, logits.cpu()), target.cpu())

    def _update_maps(self, logits: Tensor, target: Tensor) -> None:
        """(B, C, H, W) and (B, H, W).

        Raises:
            ShapeError: there are no maps.
        """
        if target.ndim != 3:
            raise ShapeError(f"evaluation.metrics: {self._metric} is for label maps, the target is {target.ndim}-D")
        prediction, target = predicted_class(logits).cpu(), target.cpu()
        count = len(self.classes)
        shown = (target >= 0) & (target < count)
        self._rows += len(target)
        if len(target):
            self._score.update(as_layers(prediction, shown, count), as_layers(target, shown, count))

    def merge(self, other: Metric) -> None:
        """See `Metric.merge`."""
        other = cast(Torchmetrics, other)
        if not self._rows:
            self._score = other._score
        elif other._rows:
            self._score.merge_state(other._score)
        self._rows += other._rows

    def compute(self) -> float | None:
        """The score; None without rows or where it is not a number."""
        if not self._rows:
            return None
        value = float(self._score.compute())
        return None if math.isnan(value) else value


@hookimpl
def robustmm_register_metrics(register: Callable[[Component], None]) -> None:
    """Offer the scores of torchmetrics."""
    register(
        Component(
            "torchmetrics",
            Torchmetrics,
            TorchmetricsOptions,
            "A classification or segmentation score of torchmetrics, by the name of its class.",
            "N. S. Detlefsen et al., Journal of Open Source Software 7(70), 2022",
            requires=frozenset({"class_probability"}),
        )
    )
