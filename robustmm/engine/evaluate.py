"""Scores on every combination of modalities in one pass: each modality is encoded once, then fused anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from robustmm import distributed
from robustmm.masks import all_combinations, presence_of
from robustmm.methods.method import Method
from robustmm.methods.probes import logits_by_chunk, unimodal_logits
from robustmm.metrics.metric import Metric
from robustmm.models.modes import evaluating
from robustmm.tasks.task import Metrics
from robustmm.types import Batch, Combination, Output

ExtraMetrics = Callable[[], Mapping[str, Metric]]


@dataclass
class Tally:
    """What is counted for one combination, or for one modality's own prediction.

    Args:
        metrics: The task's own.
        extra: From metric plugins, by name.
        excluded: Samples that have none of the combination's modalities, and so cannot be predicted.
        incomplete: Samples that lack some of them and were predicted from the rest.
    """

    metrics: Metrics
    extra: Mapping[str, Metric] = field(default_factory=dict)
    excluded: int = 0
    incomplete: int = 0

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch."""
        self.metrics.update(logits, target)
        for metric in self.extra.values():
            metric.update(logits, target)

    def merge(self, other: Tally) -> None:
        """Add what another process counted."""
        self.metrics.merge(other.metrics)
        for name, metric in self.extra.items():
            metric.merge(other.extra[name])
        self.excluded += other.excluded
        self.incomplete += other.incomplete

    def compute(self) -> dict[str, float | None]:
        """Scores by name; a plugin's metric stands under its own name."""
        return self.metrics.compute() | {name: metric.compute() for name, metric in self.extra.items()}


@dataclass
class Evaluation:
    """All that one pass counted.

    Args:
        combinations: In the order asked for.
        unimodal: Modality -> its own prediction while everything else is there too; empty where not asked for.
        unimodal_source: ``split`` or ``masked`` (see `robustmm.methods.probes`); None without unimodal scores.
        modalities: Of the model, in column order: tells which combination is the complete one.
    """

    combinations: dict[Combination, Tally]
    unimodal: dict[str, Tally] = field(default_factory=dict)
    unimodal_source: str | None = None
    modalities: Combination = ()


def evaluate_combinations(
    method: Method,
    batches: Iterable[Batch],
    device: torch.device,
    *,
    combinations: Sequence[Combination] | None = None,
    extra: ExtraMetrics = dict,
    unimodal: bool = False,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    progress: Callable[[int], None] = lambda samples: None,
) -> Evaluation:
    """Evaluate combinations; the model's mode and BatchNorm statistics are as before afterwards.

    Args:
        method: On ``device``.
        batches: This process's share of the data.
        device: Where to compute.
        combinations: None means all 2**M - 1.
        extra: Makes fresh plugin metrics.
        unimodal: Also score each modality's own logits.
        autocast: Precision context of the run.
        progress: Called with the number of samples done in each batch.

    Returns:
        Counts over all processes.
    """
    chosen = list(all_combinations(method.modalities) if combinations is None else combinations)
    result = Evaluation(
        {combo: Tally(method.task.metrics(), extra()) for combo in chosen}, modalities=method.modalities
    )
    table = torch.stack([presence_of(combo, method.modalities) for combo in chosen])
    with evaluating(method), torch.inference_mode(), autocast():
        for batch in batches:
            on_device = batch.to(device)
            output = method(on_device.inputs, batch.observed, size=method.task.target_size(batch.target))
            _count_combinations(method, on_device, output, table, list(result.combinations.values()))
            if unimodal:
                _count_unimodal(method, on_device, output, result, extra)
            progress(len(batch))
    return over_processes(result)


def _count_combinations(method: Method, batch: Batch, output: Output, table: Tensor, tallies: Sequence[Tally]) -> None:
    shown = batch.observed & table[:, None]  # (K, B, M)
    usable = shown.any(dim=2)  # (K, B)
    lacking = (usable & (shown != table[:, None]).any(dim=2)).sum(dim=1).tolist()
    start = 0
    for logits in logits_by_chunk(method, batch, output, shown):
        for own in logits:
            tally, keep = tallies[start], usable[start]
            tally.incomplete += lacking[start]
            tally.excluded += len(batch) - int(keep.sum())
            rows = slice(None) if bool(keep.all()) else keep.nonzero().squeeze(1).to(own.device)
            tally.update(own[rows], batch.target[rows])
            start += 1


def _count_unimodal(method: Method, batch: Batch, output: Output, result: Evaluation, extra: ExtraMetrics) -> None:
    own = unimodal_logits(method, output)
    if own is None:
        return
    result.unimodal_source = own.source
    for column, (name, logits) in enumerate(own.logits.items()):
        if name not in result.unimodal:
            result.unimodal[name] = Tally(method.task.metrics(), extra())
        keep = batch.observed[:, column]
        rows = slice(None) if bool(keep.all()) else keep.nonzero().squeeze(1).to(logits.device)
        result.unimodal[name].excluded += len(batch) - int(keep.sum())
        result.unimodal[name].update(logits[rows], batch.target[rows])


def over_processes(result: Evaluation) -> Evaluation:
    """The counts of all processes together."""
    first, *others = distributed.gather_objects(result)
    for other in others:
        for combo, tally in first.combinations.items():
            tally.merge(other.combinations[combo])
        for name, tally in other.unimodal.items():
            if name in first.unimodal:
                first.unimodal[name].merge(tally)
            else:
                first.unimodal[name] = tally
        first.unimodal_source = first.unimodal_source or other.unimodal_source
    return first
