"""Running a module on the rows that need it, the others being zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from robustmm.errors import ShapeError
from robustmm.models.modes import evaluating

#: What BatchNorm says of a batch that has one value per channel.
TOO_SMALL = "more than 1 value per channel"
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
        return [_spread(level, rows, len(x)) for level in levels]

    def _shapes_of(self, name: str, module: nn.Module, run: Levels, x: Tensor) -> list[torch.Size]:
        """Shapes without the batch, from one row that is run once for each size of input."""
        key = (name, x.shape[1:])
        if key not in self._shapes:
            with torch.no_grad(), evaluating(module):
                self._shapes[key] = [level.shape[1:] for level in run(x[:1])]
        return self._shapes[key]


def _spread(level: Tensor, rows: Tensor, count: int) -> Tensor:
    """(R, ...) -> (count, ...) with zeros in the other rows, in the same memory format."""
    kept = torch.contiguous_format
    if level.dim() == 4 and level.is_contiguous(memory_format=torch.channels_last):
        kept = torch.channels_last
    shape = (count, *level.shape[1:])
    spread = torch.empty(shape, dtype=level.dtype, device=level.device, memory_format=kept).zero_()
    return spread.index_copy_(0, rows, level)


def whole(name: str, run: Levels, x: Tensor) -> list[Tensor]:
    """``run(x)``, with a message of our own where the batch is too small for BatchNorm.

    Raises:
        ShapeError: a batch of one sample in training.
    """
    try:
        return list(run(x))
    except ValueError as error:
        if len(x) > 1 or TOO_SMALL not in str(error):
            raise
        raise ShapeError(
            f"{name} cannot train on a batch of one sample ({error}); use a data.batch_size of at least 2, or parts "
            f"without BatchNorm"
        ) from error


def refuse_other_sizes(level: int, maps: Mapping[str, Tensor]) -> None:
    """Maps are fused position by position.

    Raises:
        ShapeError: the modalities' maps of a level differ in size.
    """
    sizes = {name: "x".join(map(str, one.shape[2:])) for name, one in maps.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ShapeError(
            f"level {level} is {listed}; fusion needs maps of one size: bring the modalities to one size, with the "
            f"data set's option where it has one, and use encoders that halve it equally often"
        )
