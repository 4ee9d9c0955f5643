"""Training runs as child processes, a few at a time; a failed one does not lose the others."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from robustmm.engine import lock as folder_lock
from robustmm.engine.interrupt import Interrupt
from robustmm.sweep.tasks import Outcome, Share, TrainTask, outcome_of

#: Seconds between two looks at the children.
PAUSE = 0.05
LOCK = ".lock"

#: Called as tasks start and end.
OnStart = Callable[[TrainTask], None]
OnEnd = Callable[[Outcome], None]


@dataclass
class _Child:
    task: TrainTask
    slot: int
    process: subprocess.Popen[bytes]
    started: float = field(default_factory=time.monotonic)


def run_pool(tasks: Sequence[TrainTask], share: Share, lock: int, on_start: OnStart, on_end: OnEnd) -> list[Outcome]:
    """Run every task that is not done yet.

    Ctrl-C, or a termination signal, is handed on to the children once, which write their checkpoints; a second Ctrl-C
    kills them.

    Args:
        tasks: In order.
        share: How many at a time, and what each gets.
        lock: Of `locked`; children hold it too, so that it outlives this process where they do.
        on_start: Told as a task starts.
        on_end: Told as one ends, or turns out to be done already.

    Returns:
        One outcome per task that was started or kept, in the order of their ends.

    Raises:
        KeyboardInterrupt: asked to stop; every child has ended.
    """
    outcomes = [Outcome(task, "kept") for task in tasks if task.done]
    for outcome in outcomes:
        on_end(outcome)
    kept = {outcome.task for outcome in outcomes}
    waiting = [task for task in tasks if task not in kept]
    children: list[_Child] = []
    told = False
    with Interrupt() as interrupt:
        try:
            while children or (waiting and not interrupt.requested):
                if interrupt.requested and not told:
                    told = True
                    _signal(children, signal.SIGINT)
                while waiting and len(children) < share.jobs and not interrupt.requested:
                    children.append(_start(waiting.pop(0), _free_slot(children), share, lock))
                    on_start(children[-1].task)
                for child in [one for one in children if one.process.poll() is not None]:
                    children.remove(child)
                    seconds = time.monotonic() - child.started
                    outcomes.append(outcome_of(child.task, child.process.returncode, seconds, stopping=told))
                    on_end(outcomes[-1])
                time.sleep(PAUSE)
        finally:
            _signal(children, signal.SIGKILL)  # none is left, unless something went wrong or Ctrl-C came twice
            for child in children:
                child.process.wait()
        stopped = interrupt.requested
    if stopped:
        raise KeyboardInterrupt
    return outcomes


def _start(task: TrainTask, slot: int, share: Share, lock: int) -> _Child:
    task.folder.parent.mkdir(parents=True, exist_ok=True)
    output: IO[bytes]
    with task.output.open("ab") as output:
        process = subprocess.Popen(
            task.command(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **share.environment(slot)},
            start_new_session=True,  # a terminal's Ctrl-C reaches us alone, and we tell the children once
            pass_fds=(lock,) if lock >= 0 else (),
        )
    return _Child(task, slot, process)


def _free_slot(children: Sequence[_Child]) -> int:
    taken = {child.slot for child in children}
    return next(slot for slot in range(len(taken) + 1) if slot not in taken)


def _signal(children: Sequence[_Child], number: signal.Signals) -> None:
    """To the process that trains; a kill goes to all that it has started."""
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(child.process.pid, number)
            else:
                os.kill(child.process.pid, number)


def locked(folder: Path) -> AbstractContextManager[int]:
    """Keep other sweeps out of a folder; see `robustmm.engine.lock.locked`."""
    return folder_lock.locked(
        folder / LOCK,
        "another command, or runs that it left behind, are still at work there; wait for them or end them",
    )
