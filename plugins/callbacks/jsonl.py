"""Every record as a line of JSON, for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from robustmm import Callback, Component, Options, RunInfo, hookimpl


class JsonLinesOptions(Options):
    """No options."""


class JsonLines(Callback):
    """Writes ``metrics.jsonl``: one object per log, epoch or message, each with ``kind`` and ``step``.

    A resumed run drops what an earlier attempt wrote after the checkpoint, so that no step stands twice.
    """

    def __init__(self) -> None:
        self._file: TextIO | None = None
        self._step = 0

    def on_run_start(self, run: RunInfo) -> None:
        """Open the file, without the lines that training is about to write again."""
        path = run.folder / "metrics.jsonl"
        self._step = run.start_step
        if path.is_file():
            _keep_until(path, run.start_step)
        self._file = path.open("a", encoding="utf-8")

    def on_log(self, step: int, record: Mapping[str, float]) -> None:
        """Write the means since the last log."""
        self._step = step
        self._write({"kind": "log", "step": step, **record})

    def on_epoch_end(self, epoch: int, step: int, record: Mapping[str, Any]) -> None:
        """Write the scores on validation."""
        self._step = step
        self._write({"kind": "epoch", "step": step, "epoch": epoch, **record})

    def on_message(self, text: str) -> None:
        """Write the text."""
        self._write({"kind": "message", "step": self._step, "text": text})

    def on_run_end(self, status: str) -> None:
        """Write the status and close."""
        self._write({"kind": "end", "step": self._step, "status": status})
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._file is not None:
            plain = {name: _finite(value) for name, value in record.items()}
            self._file.write(json.dumps(plain, allow_nan=False) + "\n")
            self._file.flush()


def _finite(value: Any) -> Any:
    """NaN and infinities are not JSON: their names stand instead."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _keep_until(path: Path, step: int) -> None:
    """Drop records after ``step``, the end of an earlier attempt, and a line that was cut while being written."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record["step"] <= step and record["kind"] != "end":
            kept.append(line + "\n")
    path.write_text("".join(kept), encoding="utf-8")


@hookimpl
def robustmm_register_callbacks(register: Any) -> None:
    """Offer the JSON lines."""
    register(Component("jsonl", JsonLines, JsonLinesOptions, "metrics.jsonl: one JSON object per record.", "own"))
