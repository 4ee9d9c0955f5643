"""The weights that a run's selection picked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robustmm.engine import checkpoint
from robustmm.engine.run_folder import RunFolder
from robustmm.errors import CheckpointError
from robustmm.methods.method import Method


def require_weights(folder: RunFolder) -> Path:
    """The file of the weights that selection picked.

    Raises:
        CheckpointError: there is none, with the reason of the failure where training failed.
    """
    path = folder.checkpoints / "best.safetensors"
    if path.is_file():
        return path
    lacks = f"{folder.path} has no weights ({path.relative_to(folder.path)})"
    reason = folder.failure()
    if reason is None:
        raise CheckpointError(f"{lacks}; has it been trained?")
    raise CheckpointError(f"{lacks}; training failed: {reason}")


def load_selected(method: Method, folder: RunFolder) -> dict[str, Any]:
    """Give a run's method the weights that selection picked; return the checkpoint's facts.

    Returns:
        ``metric``, ``score`` and ``epoch`` of the selection.

    Raises:
        CheckpointError: there are none, or they do not fit.
    """
    path = require_weights(folder)
    state = checkpoint.load(path)
    checkpoint.load_weights(method, state["weights"], place=str(path))
    method.load_method_state(state["method_state"])
    return {key: state[key] for key in ("metric", "score", "epoch")}
