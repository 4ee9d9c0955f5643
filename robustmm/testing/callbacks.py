"""What callbacks promise."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from robustmm.engine.callbacks import Callback, RunInfo
from robustmm.registry import Component
from robustmm.testing.contract import build, check, during, require

EPOCHS = 3
STEPS_PER_EPOCH = 4
LOG: Mapping[str, float] = {"loss/task": 1.5, "loss/total": 1.5, "lr": 0.1, "samples_per_second": 100.0}


def epoch_record(epoch: int) -> dict[str, Any]:
    """Scores as the loop hands them over: some have no value, some are not finite."""
    aggregates = ("mean", "worst", "complete", "m0", "m0+m1")
    record: dict[str, Any] = {f"validation/{name}/accuracy": 0.25 * epoch for name in aggregates}
    record |= {f"validation/{name}/auroc": None for name in aggregates}
    record |= {"validation/m1/ece": float("nan"), "degenerate": ["m0"], "improved": epoch == 0, "score": "accuracy"}
    return record


def run(callback: Callback, folder: Path, *, start: int = 0, status: str = "done") -> None:
    """Every event of a run in its order, beginning with epoch ``start``."""
    facts = {"data": "three samples", "method": "plain"}
    callback.on_run_start(RunInfo(folder, "contract", EPOCHS, STEPS_PER_EPOCH, start, start * STEPS_PER_EPOCH, facts))
    callback.on_message("a message")
    for epoch in range(start, EPOCHS):
        for step in range(epoch * STEPS_PER_EPOCH, (epoch + 1) * STEPS_PER_EPOCH):
            callback.on_step(step + 1, epoch)
            if step % 2:
                callback.on_log(step + 1, LOG)
        callback.on_epoch_end(epoch, (epoch + 1) * STEPS_PER_EPOCH, epoch_record(epoch))
    callback.on_run_end(status)


@check("callback")
def follows_a_whole_run(component: Component) -> None:
    """It takes every event of a run, of a resumed one in the same folder, and of one that fails."""
    with tempfile.TemporaryDirectory() as folder:
        for start, status in ((0, "interrupted"), (1, "done"), (2, "failed")):
            with during(f"a run from epoch {start} that ends as '{status}'"):
                run(build(component), Path(folder), start=start, status=status)


@check("callback")
def ends_without_a_start(component: Component) -> None:
    """A run that failed before it started, or was told so twice, ends quietly."""
    callback: Callback = build(component)
    callback.on_run_end("failed")
    callback.on_run_end("failed")
    with tempfile.TemporaryDirectory() as folder:
        callback = build(component)
        run(callback, Path(folder))
        callback.on_run_end("done")


@check("callback")
def changes_nothing(component: Component) -> None:
    """torch's global generator and the working folder are as they were; what is written lies in the run folder."""
    before = torch.random.get_rng_state(), os.getcwd(), set(os.listdir())
    with tempfile.TemporaryDirectory() as folder:
        callback = build(component)
        state = torch.random.get_rng_state()
        run(callback, Path(folder))
        require(torch.equal(torch.random.get_rng_state(), state), "it draws from torch's global generator")
    require(os.getcwd() == before[1], "it changes the working folder")
    written = set(os.listdir()) - before[2]
    require(not written, f"it writes {', '.join(sorted(written))} outside the run folder")
