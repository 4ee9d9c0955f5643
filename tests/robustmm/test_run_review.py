"""Where a run writes, with others beside it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from robustmm import CheckpointError, distributed, run


def test_folder__refusal_of_the_first_process_ends_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Else they would wait for a folder for ever."""
    refusal = CheckpointError("runs/a is not empty")
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    monkeypatch.setattr(distributed, "gather_objects", lambda own: [refusal, own])
    loaded = cast(Any, SimpleNamespace(config=SimpleNamespace(name="a", seed=0)))
    with pytest.raises(CheckpointError, match="runs/a is not empty"):
        run._folder(run.RunRequest(loaded, root=tmp_path))
