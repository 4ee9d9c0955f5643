"""How much memory the tensors of a computation take at once, whatever allocator is behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Follows the storages that operations make and that are still in use.

    Attributes:
        peak: Largest number of bytes that were in use behind any one operation.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # likewise
        self.peak: int = 0
        self._live: dict[int, tuple[Any, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_storage(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and _storage(leaf) not in given:
                storage = leaf.untyped_storage()
                watched: Any = StorageWeakRef(storage)  # type: ignore[no-untyped-call]  # likewise
                self._live[storage._cdata] = (watched, storage.nbytes())
        self._live = {key: entry for key, entry in self._live.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return result


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def peak_memory(compute: Callable[[], object]) -> int:
    """Bytes of the tensors that a computation makes, as many as are in use at once; its inputs are not counted."""
    with torch.inference_mode(), LiveTensors() as live:
        compute()
    return int(live.peak)
