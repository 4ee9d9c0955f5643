"""How far a pool of runs is: a bar where standard error is a terminal, a line for each run elsewhere; and its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from robustmm.errors import RunFailed
from robustmm.sweep.devices import cuda_devices
from robustmm.sweep.pool import run_pool
from robustmm.sweep.tasks import Needs, Outcome, TrainTask, share_machine, usable_cores


class PoolProgress:
    """Shows what runs and what has ended; use it in a ``with`` block.

    Args:
        total: Tasks.
    """

    def __init__(self, total: int) -> None:
        self.total, self.ended, self.finished = total, 0, 0
        self.running: list[str] = []
        console = Console(stderr=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("runs", total=total)

    def __enter__(self) -> PoolProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        self._bar.stop()

    def start(self, task: TrainTask) -> None:
        """A task has started."""
        self.running.append(task.name)
        self._describe()

    def end(self, outcome: Outcome) -> None:
        """A task has ended, or was done before."""
        if outcome.task.name in self.running:
            self.running.remove(outcome.task.name)
        self.ended += 1
        self.finished += outcome.state in ("done", "kept")
        self._describe()
        self._bar.update(self._task, completed=self.ended)
        if outcome.state == "kept":
            return
        line = f"{self.ended} of {self.total}  {outcome.task.name}  {outcome.state} after {outcome.seconds:.0f} s"
        self._bar.console.print(f"{line}{': ' if outcome.error else ''}{outcome.error}", markup=False, soft_wrap=True)

    def _describe(self) -> None:
        shown = ", ".join(self.running[:2]) + (f" and {len(self.running) - 2} more" if len(self.running) > 2 else "")
        self._bar.update(self._task, description=shown or "runs")


def raise_if_failed(outcomes: Sequence[Outcome], total: int) -> None:
    """Name the runs that failed, with the last line of each error.

    Raises:
        RunFailed: one did.
    """
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if failed:
        lines = [f"  {one.task.name}: {one.error} ({one.task.output})" for one in failed]
        raise RunFailed(
            "\n".join([f"{len(failed)} of {total} runs failed; the same command tries them again:", *lines])
        )


def watched(total: int, run: Callable[[PoolProgress], list[Outcome]]) -> list[Outcome]:
    """Run tasks and show how far they are; say what to do next after Ctrl-C."""
    with PoolProgress(total) as progress:
        try:
            return run(progress)
        except KeyboardInterrupt:
            text = f"stopped after {progress.finished} of {total} runs; the same command goes on where it was"
            click.echo(text, err=True)
            raise


def run_locally(tasks: Sequence[TrainTask], lock: int, needs: Needs, jobs: int | None) -> list[Outcome]:
    """Run tasks as child processes, see `run_pool`.

    Args:
        tasks: In order.
        lock: Of `robustmm.sweep.pool.locked`.
        needs: Of the runs.
        jobs: At a time; None: as many as the machine carries.
    """
    waiting = sum(not task.done for task in tasks)
    devices = () if needs.on_cpu else cuda_devices()
    share = share_machine(waiting, jobs, needs, cores=usable_cores(), devices=devices)
    return watched(len(tasks), lambda progress: run_pool(tasks, share, lock, progress.start, progress.end))
