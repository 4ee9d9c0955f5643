"""Curves for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from robustmm import Callback, Component, Options, RunInfo, hookimpl

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardOptions(Options):
    """No options."""


class TensorBoard(Callback):
    """Writes event files to ``tb/`` in the run folder; a resumed run purges what comes after its checkpoint."""

    def __init__(self) -> None:
        self._writer: SummaryWriter | None = None

    def on_run_start(self, run: RunInfo) -> None:
        """Open the writer."""
        from torch.utils.tensorboard import SummaryWriter  # its import takes a second; only runs pay for it

        folder = run.folder / "tb"
        purge_step = run.start_step + 1 if folder.exists() else None  # what stands at start_step is not written again
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def on_log(self, step: int, record: Mapping[str, float]) -> None:
        """Write loss terms, learning rate and speed."""
        self._scalars(step, record)

    def on_epoch_end(self, epoch: int, step: int, record: Mapping[str, Any]) -> None:
        """Write validation scores."""
        self._scalars(step, {name: value for name, value in record.items() if name.startswith("validation/")})

    def on_run_end(self, status: str) -> None:
        """Close the writer."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _scalars(self, step: int, record: Mapping[str, float | None]) -> None:
        if self._writer is not None:
            for name, value in record.items():
                if value is not None:
                    self._writer.add_scalar(name, value, step)


@hookimpl
def robustmm_register_callbacks(register: Any) -> None:
    """Offer TensorBoard."""
    register(Component("tensorboard", TensorBoard, TensorBoardOptions, "Event files in tb/.", "own"))
