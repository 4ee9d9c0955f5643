"""The weights that a run's selection picked."""

from __future__ import annotations

from typing import Any

from robustmm.engine import checkpoint
from robustmm.engine.run_folder import RunFolder
from robustmm.errors import CheckpointError
from robustmm.methods.method import Method


def load_selected(method: Method, folder: RunFolder) -> dict[str, Any]:
    """Give a run's method the weights that selection picked; return the checkpoint's facts.

    Returns:
        ``metric``, ``score`` and ``epoch`` of the selection.

    Raises:
        CheckpointError: there are none, or they do not fit.
    """
    path = folder.checkpoints / "best.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{folder.path} has no {path.relative_to(folder.path)}; has the run been trained?")
    state = checkpoint.load(path)
    checkpoint.load_weights(method, state["weights"], place=str(path))
    method.load_method_state(state["method_state"])
    return {key: state[key] for key in ("metric", "score", "epoch")}
