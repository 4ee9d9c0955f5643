"""Progress for people: a bar where there is a terminal, plain lines elsewhere and in train.log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TextIO

from pydantic import Field
from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from robustmm import Callback, Component, Options, RunInfo, hookimpl


class ConsoleOptions(Options):
    """Options of the console."""

    every: int = Field(1, ge=1, description="Epochs between lines; the last epoch always has one.")


class Console(Callback):
    """One line per epoch, and a progress bar over all steps where standard error is a terminal.

    The lines also go to ``train.log`` in the run folder; a resumed run goes on below those of the earlier attempt.

    Args:
        every: Epochs between lines.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.console = RichConsole(stderr=True, highlight=False)
        self._progress: Progress | None = None
        self._losses: Mapping[str, float] = {}
        self._log: TextIO | None = None
        self._step = 0

    def on_run_start(self, run: RunInfo) -> None:
        """Show what is about to be trained."""
        self.run = run
        self._log = (run.folder / "train.log").open("a", encoding="utf-8")
        self._step = run.start_step
        for name, value in run.facts.items():
            self._print(f"{name:<12}{value}")
        if run.start_step:
            self._print(f"{'resumed':<12}at epoch {run.start_epoch}, step {run.start_step}")
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self._progress.start()
        total = run.epochs * run.steps_per_epoch
        self._bar = self._progress.add_task("training", total=total, completed=run.start_step)

    def on_step(self, step: int, epoch: int) -> None:
        """Move the bar; the bar draws itself at its own pace."""
        self._step = step
        if self._progress is not None:
            self._progress.update(self._bar, completed=step)

    def on_log(self, step: int, record: Mapping[str, float]) -> None:
        """Keep the losses for the epoch's line."""
        self._losses = record

    def on_epoch_end(self, epoch: int, step: int, record: Mapping[str, Any]) -> None:
        """Print the epoch's line."""
        if (epoch + 1) % self.every and epoch + 1 != self.run.epochs:
            return
        loss = self._losses.get("loss/total")
        parts = [f"epoch {epoch:>3}", f"step {step:>6}"]
        parts += [] if loss is None else [f"loss {loss:8.4f}"]
        parts += [f"{name} {_number(record.get(f'validation/{name}'))}" for name in _headline(record)]
        parts += ["best"] if record["improved"] else []
        self._print("  ".join(parts))
        if record["degenerate"]:
            self._print(f"           degenerate (one answer for everything): {', '.join(record['degenerate'])}")

    def on_message(self, text: str) -> None:
        """Print it."""
        self._print(text)

    def on_run_end(self, status: str) -> None:
        """Take the bar away; say how a run goes on that did not come to its end."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        if status == "interrupted":
            self._print(f"interrupted at step {self._step}; --resume continues from the last checkpoint")
        elif status == "failed":
            self._print(f"failed at step {self._step}; FAILED in the run folder has the traceback")
        if self._log is not None:
            self._log.close()
            self._log = None

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)
        if self._log is not None:
            self._log.write(text + "\n")
            self._log.flush()


def _headline(record: Mapping[str, Any]) -> list[str]:
    score = record["score"]
    return [f"{aggregate}/{score}" for aggregate in ("mean", "worst", "complete")]


def _number(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.001 else f"{value:.3g}"  # errors may have a tiny unit


@hookimpl
def robustmm_register_callbacks(register: Any) -> None:
    """Offer the console."""
    register(Component("console", Console, ConsoleOptions, "Progress bar, a line per epoch, train.log.", "own"))
