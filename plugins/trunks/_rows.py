"""Running a module on the rows that need it, the others being zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from robustmm import ShapeError, evaluating

#: (B, ...) -> levels, (B, ...) each.
Levels = Callable[[Tensor], Sequence[Tensor]]


def rows_to_run(present: Tensor, *, training: bool) -> Tensor | None:
    """Indices of the present rows of ``present`` (B,) bool, on its device; None where the whole batch is to be run.

    A lone row is run with the whole batch in training, because BatchNorm cannot train on one row.
    """
    rows = present.nonzero().squeeze(1)
    return None if len(rows) == len(present) or (len(rows) == 1 and training) else rows


class RowRunner:
    """Runs modules on some rows of a batch; remembers the shapes that results have where there is no row to run."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[str, torch.Size], list[torch.Size]] = {}

    def __call__(self, name: str, module: nn.Module, run: Levels, x: Tensor, rows: Tensor | None) -> list[Tensor]:
        """``run(x)`` for chosen rows, zeros for the others.

        Args:
            name: What is run, for messages; different modules have different names.
            module: Everything that ``run`` makes use of.
            run: x -> levels.
            x: (B, ...).
            rows: Indices (R,), or None for all.

        Raises:
            ShapeError: BatchNorm has one value per channel alone to train on.
        """
        if rows is None:
            return whole(name, run, x)
        if len(rows) == 0:
            return [x.new_zeros(len(x), *shape) for shape in self._shapes_of(name, module, run, x)]
        rows = rows.to(x.device, non_blocking=True)
        levels = whole(name, run, x.index_select(0, rows))
        return [level.new_zeros(len(x), *level.shape[1:]).index_copy(0, rows, level) for level in levels]

    def _shapes_of(self, name: str, module: nn.Module, run: Levels, x: Tensor) -> list[torch.Size]:
        """Shapes without the batch, from one row that is run once for each size of input."""
        key = (name, x.shape[1:])
        if key not in self._shapes:
            with torch.no_grad(), evaluating(module):
                self._shapes[key] = [level.shape[1:] for level in run(x[:1])]
        return self._shapes[key]


def whole(name: str, run: Levels, x: Tensor) -> list[Tensor]:
    """``run(x)``, with a message of our own where the batch is too small for BatchNorm.

    Raises:
        ShapeError: a batch of one sample in training.
    """
    try:
        return list(run(x))
    except ValueError as error:
        if len(x) > 1:
            raise
        raise ShapeError(
            f"{name} cannot train on a batch of one sample ({error}); use a data.batch_size of at least 2"
        ) from error
