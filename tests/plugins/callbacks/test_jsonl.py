"""metrics.jsonl: strict JSON, each step once."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from robustmm_plugins.callbacks.jsonl import JsonLines

from robustmm import RunInfo


def begin(folder: Path, start_step: int = 0) -> JsonLines:
    callback = JsonLines()
    callback.on_run_start(RunInfo(folder, "tiny", 2, 4, start_step // 4, start_step, {}))
    return callback


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


def test_jsonl__writes_one_object_per_record(tmp_path: Path) -> None:
    callback = begin(tmp_path)
    callback.on_message("training teacher: 2 epochs")
    callback.on_step(1, 0)
    callback.on_log(2, {"loss/total": 1.5, "lr": 0.1})
    callback.on_epoch_end(0, 4, {"validation/mean/accuracy": None, "degenerate": ["rgb"], "improved": True})
    callback.on_message("stopped early")
    callback.on_run_end("done")
    assert lines(tmp_path) == [
        {"kind": "message", "step": 0, "text": "training teacher: 2 epochs"},
        {"kind": "log", "step": 2, "loss/total": 1.5, "lr": 0.1},
        {
            "kind": "epoch",
            "step": 4,
            "epoch": 0,
            "validation/mean/accuracy": None,
            "degenerate": ["rgb"],
            "improved": True,
        },
        {"kind": "message", "step": 4, "text": "stopped early"},
        {"kind": "end", "step": 4, "status": "done"},
    ]


def test_jsonl__can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    callback = begin(tmp_path)
    callback.on_log(1, {"lr": 0.1})
    assert len(lines(tmp_path)) == 1
    callback.on_run_end("interrupted")


@pytest.mark.parametrize(("value", "text"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_jsonl__writes_no_literal_that_json_does_not_know(tmp_path: Path, value: float, text: str) -> None:
    callback = begin(tmp_path)
    callback.on_log(1, {"loss/total": value, "lr": 0.1})
    callback.on_run_end("failed")
    assert lines(tmp_path)[0] == {"kind": "log", "step": 1, "loss/total": text, "lr": 0.1}


def test_jsonl__resumed_run_drops_what_comes_after_its_checkpoint(tmp_path: Path) -> None:
    callback = begin(tmp_path)
    for step in (1, 2, 3):
        callback.on_log(step, {"lr": 0.1})
    callback.on_run_end("interrupted")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "log", "step": 2, "lr"')  # cut by a kill
    callback = begin(tmp_path, start_step=2)
    callback.on_log(3, {"lr": 0.2})
    callback.on_run_end("done")
    found = [(line["kind"], line["step"], line.get("lr")) for line in lines(tmp_path)]
    assert found == [("log", 1, 0.1), ("log", 2, 0.1), ("log", 3, 0.2), ("end", 3, None)]


def test_jsonl__after_the_end_nothing_is_written(tmp_path: Path) -> None:
    callback = begin(tmp_path)
    callback.on_run_end("done")
    callback.on_message("late")
    callback.on_run_end("done")
    assert [line["kind"] for line in lines(tmp_path)] == ["end"]
