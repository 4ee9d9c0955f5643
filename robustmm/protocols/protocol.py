"""The contract of a protocol, and what all of them are given."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustmm.build import Assembly
from robustmm.corruption import Spread
from robustmm.engine.evaluate import Tally
from robustmm.engine.record import Views
from robustmm.engine.recording import Recording, Records
from robustmm.engine.run_folder import RunFolder
from robustmm.engine.shots import spread_positions
from robustmm.methods.method import Method
from robustmm.metrics.metric import Metric
from robustmm.protocols.altered import spreads_of
from robustmm.registry import Registry

#: Test samples that are read again to see whether the data are still the same.
COMPARED = 256


@dataclass(frozen=True)
class Subject:
    """A trained run that is measured.

    Args:
        folder: Of the run.
        assembly: Its parts.
        method: With the selected weights, ready for prediction, on ``device``.
        registry: Of the loaded plugins.
        device: Where to compute.
        autocast: Precision context of the run.
    """

    folder: RunFolder
    assembly: Assembly
    method: Method
    registry: Registry
    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]

    @property
    def modalities(self) -> tuple[str, ...]:
        """In column order."""
        return self.method.modalities

    @cached_property
    def spreads(self) -> dict[str, Spread]:
        """What raw values of each modality look like in the training part."""
        return spreads_of(self.assembly.parts)

    @cached_property
    def weights(self) -> str:
        """A digest of the file of the selected weights."""
        return hashlib.sha256((self.folder.checkpoints / "best.safetensors").read_bytes()).hexdigest()

    @cached_property
    def content(self) -> str:
        """A digest of names, values and labels of test samples, evenly spaced where there are more than `COMPARED`."""
        loader, total = self.assembly.loader("test"), len(self.assembly.parts.test)
        digest = hashlib.sha256()
        for batch in loader.ordered(torch.tensor(spread_positions(total, COMPARED)), whole=True):
            digest.update("\n".join(batch.ids).encode())
            for tensor in (*batch.inputs.values(), batch.observed, batch.target):
                digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def streams_extra(self) -> bool:
        """Whether plugin metrics must see logits as they come: those of a dense task are not kept."""
        return self.method.task.dense and bool(self.assembly.make_metrics())

    def tally(
        self, records: Records, target: Tensor, keep: Tensor | None = None, extra: Mapping[str, Metric] | None = None
    ) -> Tally:
        """Count recorded samples.

        Args:
            records: Of all samples.
            target: Likewise.
            keep: (N,) bool: the samples that are counted, the others are excluded; None counts all.
            extra: Plugin metrics that have seen the logits; None counts them here, for a dense task leaves them out.
        """
        task, excluded = self.method.task, 0
        if keep is not None and not bool(keep.all()):
            excluded = int((~keep).sum())
            records, target = {name: values[keep] for name, values in records.items()}, target[keep]
        if extra is None:
            extra = {} if task.dense else self.assembly.make_metrics()
            for metric in extra.values():
                metric.update(records["logits"], target)
        return Tally(task.count(records, target), extra, excluded=excluded)


class Protocol(ABC):
    """One way of measuring. It says what is to be recorded, and then what the records mean.

    Attributes:
        name: As on the command line and in results.
    """

    name: ClassVar[str]

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def views(self) -> Views:
        """What is to be recorded; nothing as it stands."""
        return Views()

    @abstractmethod
    def result(self, recording: Recording) -> dict[str, Any]:
        """JSON values: ``rows``, each with ``metrics``, and whatever else belongs to the record."""


def row_of(tally: Tally, **place: Any) -> dict[str, Any]:
    """A row of results: where it stands, its scores, and what they rest on."""
    return {
        **place,
        "metrics": tally.compute(),
        "samples": tally.metrics.count,
        "excluded": tally.excluded,
        "degenerate": tally.metrics.degenerate,
    }
