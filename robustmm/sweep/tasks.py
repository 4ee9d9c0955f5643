"""A training run as a child process: its command, what its folder says of it, what became of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robustmm.config.schema import TrainSection
from robustmm.engine.run_folder import RunFolder

#: ``kept``: was done before; ``stopped``: was asked to stop, and goes on next time.
State = Literal["done", "kept", "failed", "stopped"]


@dataclass(frozen=True)
class TrainTask:
    """One run to be trained.

    Args:
        name: For people.
        folder: The run's folder.
        arguments: Of ``robustmm train``, without the folder.
        plugins_dirs: Folders of plugins.
    """

    name: str
    folder: Path
    arguments: tuple[str, ...]
    plugins_dirs: tuple[str, ...] = ()

    @property
    def output(self) -> Path:
        """What the process says, beside the folder, which has to be empty at the start; the run writes its own log."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def done(self) -> bool:
        """Whether the run came to its end."""
        return RunFolder(self.folder).done

    def command(self) -> list[str]:
        """The command line: a new run, the rest of an unfinished one, or a failed one again from its beginning."""
        folders = [part for path in self.plugins_dirs for part in ("--plugins-dir", path)]
        begun = RunFolder(self.folder).config.is_file()
        again = ["--overwrite" if (self.folder / "FAILED").is_file() else "--resume"] if begun else []
        program = [sys.executable, "-m", "robustmm", *folders, "train"]
        return [*program, *self.arguments, "--folder", str(self.folder), *again]

    def last_words(self) -> str:
        """The last line of the error that ended the run."""
        for path in (self.folder / "FAILED", self.output):
            if path.is_file():
                lines = [
                    line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
                ]
                if lines:
                    return lines[-1].strip()
        return "it said nothing"


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Args:
        task: Which.
        state: How it ended.
        error: Last line of what went wrong; empty where nothing did.
        seconds: It took, 0 where it was kept.
    """

    task: TrainTask
    state: State
    error: str = ""
    seconds: float = 0.0


def outcome_of(task: TrainTask, code: int, seconds: float, *, stopping: bool) -> Outcome:
    """Judge by the folder's marks; an exit code of 130 or a signal is a stop where one was asked for."""
    if task.done:
        return Outcome(task, "done", seconds=seconds)
    if code == 130 or (stopping and code < 0):
        return Outcome(task, "stopped", seconds=seconds)
    said = task.last_words() if code >= 0 else f"ended by signal {-code}"
    return Outcome(task, "failed", said, seconds)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Needs:
    """What runs ask of the machine.

    Args:
        threads: Most CPU threads that a run asks for; None where none does.
        on_cpu: Whether every run asks for the CPU.
        single: Whether every run is one process on one device.
    """

    threads: int | None = None
    on_cpu: bool = False
    single: bool = True

    @classmethod
    def of(cls, sections: Iterable[TrainSection]) -> Needs:
        """What the runs of some configurations ask for."""
        found = list(sections)
        threads = [section.threads for section in found if section.threads is not None]
        single = all(section.devices == 1 and section.nodes == 1 for section in found)
        return cls(max(threads, default=None), all(section.accelerator == "cpu" for section in found), single)

    def joined(self, other: Needs) -> Needs:
        """What both ask for together."""
        threads = [count for count in (self.threads, other.threads) if count is not None]
        return Needs(max(threads, default=None), self.on_cpu and other.on_cpu, self.single and other.single)


@dataclass(frozen=True)
class Share:
    """How the machine is divided.

    Args:
        jobs: Processes at a time.
        threads: CPU threads of each.
        devices: Of CUDA, each process gets one in turn; empty leaves them as they are.
    """

    jobs: int
    threads: int
    devices: tuple[str, ...] = ()

    def environment(self, slot: int) -> dict[str, str]:
        """Variables of the process in a slot, 0 to ``jobs - 1``."""
        own = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        return own | ({"CUDA_VISIBLE_DEVICES": self.devices[slot % len(self.devices)]} if self.devices else {})


def share_machine(count: int, jobs: int | None, needs: Needs, *, cores: int, devices: Sequence[str] = ()) -> Share:
    """Divide cores, and CUDA devices where there are some.

    Without a wish: one run at a time where runs are of several processes, else one per device, or as many as fit the
    cores at the threads that runs ask for, one where they ask for none. What is left of the cores goes to the runs.

    Args:
        count: Tasks.
        jobs: Processes at a time that the user wants.
        needs: Of the runs.
        cores: That may be used.
        devices: Names as ``CUDA_VISIBLE_DEVICES`` has them.
    """
    spread = tuple(devices) if needs.single and not needs.on_cpu else ()
    fitting = (len(spread) or cores // (needs.threads or 1)) if needs.single else 1
    wanted = max(1, min(count, jobs if jobs is not None else fitting))
    return Share(wanted, needs.threads or max(1, cores // wanted), spread)
