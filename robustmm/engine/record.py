"""One pass over a part that records any number of views: each modality is encoded once, an altered one once more.

The pass goes shard by shard, and a finished shard is a file: a pass that was stopped goes on where it was, and several
processes share the shards out.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustmm import distributed
from robustmm.data.loaders import PartLoader
from robustmm.engine.recording import (
    NO_SOURCE,
    Recording,
    Records,
    combination_view,
    joined,
    load_recording,
    unimodal_view,
)
from robustmm.masks import presence_of
from robustmm.methods.method import Method
from robustmm.methods.probes import logits_by_chunk, unimodal_logits
from robustmm.metrics.metric import Metric
from robustmm.models.modes import evaluating
from robustmm.registry import Track
from robustmm.types import Batch, Combination, Output

#: Raw values of some modalities in place of a batch's own, {modality: (B, ...)} on the CPU.
Alteration = Callable[[Batch], Mapping[str, Tensor]]


def no_track(label: str, items: Sequence[Any], /) -> Sequence[Any]:
    """Hands on items without showing anything."""
    return items


@dataclass(frozen=True)
class Views:
    """What is recorded.

    Args:
        combinations: Shown to the model, as far as samples have them.
        alterations: View -> change of the inputs, with everything shown.
        unimodal: Also each modality's own prediction while everything else is there.
    """

    combinations: Sequence[Combination] = ()
    alterations: Mapping[str, Alteration] = field(default_factory=dict)
    unimodal: bool = False

    def names(self, modalities: Sequence[str]) -> list[str]:
        """Every view."""
        own = [unimodal_view(name) for name in modalities] if self.unimodal else []
        return [*map(combination_view, self.combinations), *own, *self.alterations]


@dataclass
class Recorder:
    """Records batches.

    Args:
        method: On ``device``, in evaluation mode.
        device: Where to compute.
        views: What to record.
        autocast: Precision context of the run.
        extra: Plugin metrics by view, of a dense task: they want the logits, of which records are counts.
        unimodal_source: See `Recording`; known after the first batch.
    """

    method: Method
    device: torch.device
    views: Views
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    extra: Mapping[str, Mapping[str, Metric]] = field(default_factory=dict)
    unimodal_source: str | None = None

    def __call__(self, batch: Batch) -> dict[str, Records]:
        """The records of a batch by view."""
        task, moved = self.method.task, batch.to(self.device)
        found: dict[str, Records] = {}
        with torch.inference_mode(), self.autocast():
            output = self.method(moved.inputs, batch.observed, size=task.target_size(batch.target))
            for view, logits, shown in self._predictions(moved, output):
                found[view] = task.record(logits, moved.target)
                self._count_extra(view, logits, moved.target, shown)
            for view, alteration in self.views.alterations.items():
                found[view] = task.record(self._altered(moved, output, alteration(batch)), moved.target)
        return found

    def _predictions(self, batch: Batch, output: Output) -> Iterator[tuple[str, Tensor, Tensor]]:
        """View, logits, and which samples (B,) they mean something of."""
        chosen = self.views.combinations
        if chosen:
            table = torch.stack([presence_of(combo, self.method.modalities) for combo in chosen])
            shown = batch.observed & table[:, None]  # (K, B, M)
            every = (logits for chunk in logits_by_chunk(self.method, batch, output, shown) for logits in chunk)
            for combo, logits, own in zip(chosen, every, shown, strict=True):
                yield combination_view(combo), logits, own.any(dim=1)
        if not self.views.unimodal:
            return
        own_logits = unimodal_logits(self.method, output)
        self.unimodal_source = NO_SOURCE if own_logits is None else own_logits.source
        for column, (name, logits) in enumerate(own_logits.logits.items() if own_logits else ()):
            yield unimodal_view(name), logits, batch.observed[:, column]

    def _altered(self, batch: Batch, output: Output, changed: Mapping[str, Tensor]) -> Tensor:
        method, inputs = self.method, {name: value.to(self.device) for name, value in changed.items()}
        size = tuple(output.logits.shape[2:])
        features = method.trunk.reencode(output.features, inputs, batch.observed)
        fused = None if features is None else method.trunk.refuse(features, output.presence)
        if features is None or fused is None:
            again: Output = method({**batch.inputs, **inputs}, batch.observed, size=size)
            return again.logits
        return method.readout(features, fused, output.presence, size).logits

    def _count_extra(self, view: str, logits: Tensor, target: Tensor, shown: Tensor) -> None:
        for metric in self.extra.get(view, {}).values():
            rows = shown.nonzero().squeeze(1).to(logits.device)
            metric.update(logits[rows], target[rows])


def record(
    recorder: Recorder, loader: PartLoader, folder: Path, facts: Mapping[str, Any], *, track: Track = no_track
) -> Recording:
    """Record a part.

    Args:
        recorder: Of this process.
        loader: Of the part; one batch is one shard.
        folder: Where shards are kept until all are there; other views or facts have a folder of their own.
        facts: See `Recording`.
        track: Shows how far it is.

    Returns:
        The same on every process.
    """
    method = recorder.method
    names = recorder.views.names(method.modalities)
    digest = hashlib.sha256(json.dumps([facts, names, loader.batch_size], sort_keys=True).encode()).hexdigest()[:16]
    shards = folder / digest
    if recorder.extra and distributed.rank() == 0:
        shutil.rmtree(shards, ignore_errors=True)  # plugin metrics are not kept: everything is to be seen in one go
    distributed.barrier()
    shards.mkdir(parents=True, exist_ok=True)
    count = -(-len(loader.part) // loader.batch_size)
    share = range(distributed.rank(), count, distributed.world_size())
    waiting = [number for number in share if not _shard(shards, number).is_file()]
    positions = torch.arange(len(loader.part)).split(loader.batch_size)  # type: ignore[no-untyped-call]  # of torch
    chosen = torch.cat([positions[number] for number in waiting]) if waiting else torch.arange(0)
    with evaluating(method):
        batches = loader.ordered(chosen, whole=True)
        for number in track(f"recording {len(names)} views", waiting):
            batch = next(batches)
            views = recorder(batch)
            source = recorder.unimodal_source
            own = Recording(batch.modalities, batch.ids, batch.observed, batch.target, views, facts, source)
            own.save(_shard(shards, number))
    distributed.barrier()
    made = replace(
        joined([load_recording(_shard(shards, number)) for number in range(count)]), extra=_merged(recorder.extra)
    )
    distributed.barrier()
    if distributed.rank() == 0:
        shutil.rmtree(folder)
    return made


def _merged(extra: Mapping[str, Mapping[str, Metric]]) -> Mapping[str, Mapping[str, Metric]]:
    """Plugin metrics with what every process has counted."""
    first, *others = distributed.gather_objects(extra)
    for other in others:
        for view, metrics in first.items():
            for name, metric in metrics.items():
                metric.merge(other[view][name])
    return first


def _shard(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.npz"
