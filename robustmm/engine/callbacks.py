"""The contract of a callback: it observes a run and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunInfo:
    """What a callback is told when a run starts.

    Args:
        folder: Run folder; a callback writes only below it.
        name: Name of the configuration.
        epochs: Planned epochs.
        steps_per_epoch: Optimiser steps in an epoch.
        start_epoch: First epoch to run; above 0 in a resumed run.
        start_step: Optimiser steps done before; above 0 in a resumed run.
        facts: What the console shows at the top: data, model, method, device.
    """

    folder: Path
    name: str
    epochs: int
    steps_per_epoch: int
    start_epoch: int
    start_step: int
    facts: Mapping[str, str]


class Callback:
    """Observes; every member is a no-op as it stands. Called on the first process alone.

    Values in records are Python numbers; a callback never sees a live tensor.
    """

    def on_run_start(self, run: RunInfo) -> None:
        """Before the first epoch."""

    def on_step(self, step: int, epoch: int) -> None:
        """After every optimiser step; must be cheap."""

    def on_log(self, step: int, record: Mapping[str, float]) -> None:
        """Every ``train.log_every`` steps: loss terms, learning rate, samples per second."""

    def on_epoch_end(self, epoch: int, step: int, record: Mapping[str, Any]) -> None:
        """After validation: scores by name such as ``validation/mean/accuracy``."""

    def on_message(self, text: str) -> None:
        """Something worth telling: a teacher is being trained, training stopped early."""

    def on_run_end(self, status: str) -> None:
        """Once, whatever happened: ``done``, ``failed`` or ``interrupted``."""
