"""TensorBoard's event files, read with TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path

import pytest
from robustmm_plugins.callbacks.tensorboard import TensorBoard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from robustmm import RunInfo


def begin(folder: Path, start_step: int = 0) -> TensorBoard:
    callback = TensorBoard()
    callback.on_run_start(RunInfo(folder, "tiny", 2, 4, start_step // 4, start_step, {}))
    return callback


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder / "tb"))
    events.Reload()
    return events


def test_tensorboard__writes_every_number_under_its_name(tmp_path: Path) -> None:
    callback = begin(tmp_path)
    callback.on_log(1, {"loss/task": 1.5, "lr": 0.1})
    callback.on_epoch_end(0, 4, {"validation/mean/accuracy": 0.5, "validation/auroc": None, "degenerate": ["rgb"]})
    callback.on_run_end("done")
    events = read(tmp_path)
    assert set(events.Tags()["scalars"]) == {"loss/task", "lr", "validation/mean/accuracy"}
    (loss,), (accuracy,) = events.Scalars("loss/task"), events.Scalars("validation/mean/accuracy")
    assert (loss.step, loss.value) == (1, 1.5)
    assert (accuracy.step, accuracy.value) == (4, 0.5)


@pytest.mark.parametrize(("start_step", "kept"), [(0, 0), (2, 2)])
def test_tensorboard__resumed_run_keeps_what_was_written_up_to_its_checkpoint(
    tmp_path: Path, start_step: int, kept: int
) -> None:
    callback = begin(tmp_path)
    for step in (1, 2, 3):
        callback.on_log(step, {"lr": 1.0})
    callback.on_run_end("interrupted")
    (first,) = (tmp_path / "tb").iterdir()
    first.rename(first.with_name("events.out.tfevents.1.machine.1.0"))  # readers go by the second in the name
    callback = begin(tmp_path, start_step)
    for step in range(start_step + 1, 5):
        callback.on_log(step, {"lr": 2.0})
    callback.on_run_end("done")
    found = [(event.step, event.value) for event in read(tmp_path).Scalars("lr")]
    assert found == [(step, 1.0 if step <= kept else 2.0) for step in range(1, 5)]
