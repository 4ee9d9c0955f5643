"""Checkpoints without pickle: tensors in one safetensors file, everything else as JSON in its header.

One file is written beside its place and moved there, so that a killed run leaves the old checkpoint or the new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from robustmm.errors import CheckpointError

_TENSOR = "__tensor__"
_HEADER = "state"


def pack(tree: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """Take the tensors out of nested mappings and lists; what is left is JSON.

    Args:
        tree: Mappings with string or integer keys, lists, tuples, tensors and JSON values.
        tensors: Filled with path -> tensor.
        path: Where ``tree`` stands.

    Returns:
        The tree with each tensor replaced by a reference. Integer keys are kept apart from strings; tuples come back
        as lists.

    Raises:
        CheckpointError: a value is neither a tensor nor a JSON value, or a key neither a string nor an integer.
    """
    if isinstance(tree, Tensor):
        name = _unused(path, tensors)
        tensors[name] = tree.detach().cpu().contiguous().clone()
        return {_TENSOR: name}
    if isinstance(tree, Mapping):
        return {_pack_key(key, path): pack(value, tensors, f"{path}/{key}") for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [pack(value, tensors, f"{path}/{place}") for place, value in enumerate(tree)]
    if tree is None or isinstance(tree, str | int | float | bool):
        return tree
    raise CheckpointError(f"cannot save {path or 'the state'}: {type(tree).__name__} is neither a tensor nor JSON")


def _unused(path: str, tensors: Mapping[str, Tensor]) -> str:
    """``path``, or a longer name where keys with slashes, or 0 beside "0", make two places read alike."""
    while path in tensors:
        path += "'"
    return path


def _pack_key(key: Any, path: str) -> str:
    if isinstance(key, int) and not isinstance(key, bool):
        return f"int:{key}"
    if not isinstance(key, str):
        raise CheckpointError(f"cannot save {path or 'the state'}: key {key!r} is neither a string nor an integer")
    return f"str:{key}" if key == _TENSOR or key.startswith(("int:", "str:")) else key


def _unpack_key(key: str) -> str | int:
    return int(key[4:]) if key.startswith("int:") else key.removeprefix("str:")


def unpack(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `pack`."""
    if isinstance(tree, dict):
        if set(tree) == {_TENSOR}:
            return tensors[tree[_TENSOR]]
        return {_unpack_key(key): unpack(value, tensors) for key, value in tree.items()}
    if isinstance(tree, list):
        return [unpack(value, tensors) for value in tree]
    return tree


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state atomically, and its JSON part beside it for people to read."""
    tensors: dict[str, Tensor] = {}
    header = json.dumps(pack(state, tensors))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        save_file(tensors, temporary, metadata={_HEADER: header})
    except SafetensorError as error:
        raise CheckpointError(f"{path} cannot be written: {error}") from error
    temporary.chmod(0o666 & ~_umask())  # safetensors makes files that their owner alone can read
    _flush(temporary)
    os.replace(temporary, path)
    readable = {key: value for key, value in state.items() if isinstance(value, str | int | float | bool | None)}
    path.with_suffix(".json").write_text(json.dumps(readable, indent=2) + "\n")


def _umask() -> int:
    """The process's mask for new files, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush(path: Path) -> None:
    with path.open("r+b") as file:  # Windows flushes nothing that was opened for reading alone
        os.fsync(file.fileno())


def load(path: Path, *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a state.

    Raises:
        CheckpointError: the file is missing, damaged, or not written by `save`.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            if _HEADER not in metadata:
                raise CheckpointError(f"{path} is not a checkpoint of robustmm: it has no state header")
            # Copies: what safetensors gives lies in the mapped file, which Windows then refuses to replace.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a mapping
        state: dict[str, Any] = unpack(json.loads(metadata[_HEADER]), tensors)
    except (SafetensorError, OSError, json.JSONDecodeError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file: {error}") from error
    return state


def load_weights(module: torch.nn.Module, weights: Mapping[str, Tensor], *, place: str) -> None:
    """Load a state dict strictly.

    Raises:
        CheckpointError: keys or shapes differ; the message lists the first few.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in weights]
    extra = [name for name in weights if name not in own]
    shapes = [
        f"{name} is {tuple(weights[name].shape)}, the model has {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    problems = [*(f"{n} is missing" for n in missing), *(f"{n} is not in the model" for n in extra), *shapes]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise CheckpointError(f"{place} does not fit this configuration: {shown}")
    module.load_state_dict(dict(weights))
