"""The pool: children, their share of the machine, failures, stops and the lock."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from robustmm.config.schema import TrainSection
from robustmm.errors import CheckpointError
from robustmm.sweep.pool import locked, run_pool
from robustmm.sweep.tasks import Needs, Outcome, Share, TrainTask, outcome_of, share_machine

ALONE = Share(jobs=2, threads=1)


@dataclass(frozen=True)
class Script(TrainTask):
    """A task whose process runs Python source in place of a training."""

    source: str = ""

    def command(self) -> list[str]:
        return [
            sys.executable,
            "-c",
            f"import os, pathlib, sys, time\nfolder = pathlib.Path({str(self.folder)!r})\n{self.source}",
        ]


FINISH = "folder.mkdir(); (folder / 'DONE').touch()"


def script(folder: Path, name: str, source: str = FINISH) -> Script:
    return Script(name, folder / name, (), source=source)


def ignore(_: object) -> None:
    """Nobody looks."""


def test_pool__a_failed_run_does_not_lose_the_others(tmp_path: Path) -> None:
    tasks = [script(tmp_path, "bad", "print('first'); sys.exit('the disk is full')")]
    tasks += [script(tmp_path, f"good{place}") for place in range(3)]
    started: list[str] = []
    ended: list[Outcome] = []
    outcomes = run_pool(tasks, ALONE, -1, lambda task: started.append(task.name), ended.append)
    assert {one.task.name: one.state for one in outcomes} == {
        "bad": "failed",
        "good0": "done",
        "good1": "done",
        "good2": "done",
    }
    assert next(one.error for one in outcomes if one.state == "failed") == "the disk is full"
    assert (tmp_path / "bad.log").read_text().splitlines()[-1] == "the disk is full"
    assert (started[:2], len(ended)) == (["bad", "good0"], 4)


def test_pool__keeps_what_is_done(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "DONE").touch()
    (outcome,) = run_pool([script(tmp_path, "old", "sys.exit(1)")], ALONE, -1, ignore, ignore)
    assert (outcome.state, outcome.seconds) == ("kept", 0)


def test_pool__never_more_than_its_jobs_each_with_its_share(tmp_path: Path) -> None:
    source = "time.sleep(0.2); folder.mkdir(); (folder / 'DONE').write_text(' '.join(os.environ[k] for k in "
    source += "('OMP_NUM_THREADS', 'CUDA_VISIBLE_DEVICES')))"
    tasks = [script(tmp_path, str(place), source) for place in range(4)]
    running, most = 0, 0

    def start(_: TrainTask) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)

    def end(_: Outcome) -> None:
        nonlocal running
        running -= 1

    run_pool(tasks, Share(2, 3, ("5", "7")), -1, start, end)
    assert most == 2
    assert {(tmp_path / str(place) / "DONE").read_text() for place in range(2)} == {"3 5", "3 7"}


def test_pool__ctrl_c_is_handed_on_once_and_nothing_new_starts(tmp_path: Path) -> None:
    wait = "import signal\nfolder.mkdir()\n"
    wait += "signal.signal(signal.SIGINT, lambda *_: ((folder / 'told').touch(), sys.exit(130)))"
    tasks = [script(tmp_path, "a", f"{wait}\n(folder / 'ready').touch()\ntime.sleep(30)"), script(tmp_path, "b")]
    threading.Thread(target=_interrupt_when, args=(tmp_path / "a" / "ready",)).start()
    ended: list[Outcome] = []
    with pytest.raises(KeyboardInterrupt):
        run_pool(tasks, Share(1, 1), -1, ignore, ended.append)
    assert [one.state for one in ended] == ["stopped"]
    assert (tmp_path / "a" / "told").exists()
    assert not (tmp_path / "b").exists()


def test_pool__second_ctrl_c_kills(tmp_path: Path) -> None:
    stubborn = "import signal\nfolder.mkdir()\nsignal.signal(signal.SIGINT, lambda *_: (folder / 'told').touch())\n"
    stubborn += "(folder / 'ready').touch()\nwhile True: time.sleep(1)"
    thread = threading.Thread(target=lambda: [_interrupt_when(tmp_path / "a" / name) for name in ("ready", "told")])
    thread.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_pool([script(tmp_path, "a", stubborn)], ALONE, -1, ignore, ignore)
    assert time.monotonic() - began < 10
    thread.join()


def _interrupt_when(path: Path) -> None:
    for _ in range(1000):
        if path.exists():
            break
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)


def test_locked__one_at_a_time_and_as_long_as_a_child_lives(tmp_path: Path) -> None:
    with locked(tmp_path) as lock:
        with (
            pytest.raises(CheckpointError, match="is in use: another command, or runs that it left behind"),
            locked(tmp_path),
        ):
            pass
        copy = os.dup(lock)  # as a child has it
    with pytest.raises(CheckpointError), locked(tmp_path):
        pass
    os.close(copy)
    with locked(tmp_path):
        pass


def test_command__new_unfinished_and_failed_runs(tmp_path: Path) -> None:
    task = TrainTask("a", tmp_path / "a", ("-c", "x.yaml"), ("plugins",))
    new = task.command()
    assert new[1:] == [
        "-m",
        "robustmm",
        "--plugins-dir",
        "plugins",
        "train",
        "-c",
        "x.yaml",
        "--folder",
        str(task.folder),
    ]
    task.folder.mkdir()
    (task.folder / "config.yaml").touch()
    assert task.command() == [*new, "--resume"]
    (task.folder / "FAILED").touch()
    assert task.command() == [*new, "--overwrite"]


def test_outcome__by_marks_and_codes(tmp_path: Path) -> None:
    task = TrainTask("a", tmp_path / "a", ())
    assert outcome_of(task, 130, 1, stopping=False).state == "stopped"
    assert outcome_of(task, -2, 1, stopping=True).state == "stopped"
    killed = outcome_of(task, -9, 1, stopping=False)
    assert (killed.state, killed.error) == ("failed", "ended by signal 9")
    assert outcome_of(task, 2, 1, stopping=False).error == "it said nothing"
    task.folder.mkdir()
    (task.folder / "FAILED").write_text("2026\nTraceback\nRunFailed: loss is nan\n")
    assert outcome_of(task, 1, 1, stopping=False).error == "RunFailed: loss is nan"
    (task.folder / "DONE").touch()
    assert outcome_of(task, 0, 1, stopping=False).state == "done"


@pytest.mark.parametrize(
    ("count", "jobs", "needs", "cores", "devices", "share"),
    [
        (9, None, Needs(threads=2), 8, (), (4, 2, ())),
        (9, None, Needs(), 8, (), (8, 1, ())),
        (2, None, Needs(), 8, (), (2, 4, ())),
        (9, 3, Needs(), 8, (), (3, 2, ())),
        (9, None, Needs(threads=4), 2, (), (1, 4, ())),
        (0, None, Needs(), 2, (), (1, 2, ())),
        (9, None, Needs(), 8, ("0", "1"), (2, 4, ("0", "1"))),
        (9, None, Needs(on_cpu=True), 8, ("0", "1"), (8, 1, ())),
        (9, None, Needs(single=False), 8, ("0", "1"), (1, 8, ())),
    ],
)
def test_share_machine__divides_cores_and_devices(
    count: int, jobs: int | None, needs: Needs, cores: int, devices: tuple[str, ...], share: tuple[object, ...]
) -> None:
    made = share_machine(count, jobs, needs, cores=cores, devices=devices)
    assert (made.jobs, made.threads, made.devices) == share


def test_needs__of_several_configurations_together() -> None:
    sections = [TrainSection(epochs=1, threads=2, accelerator="cpu"), TrainSection(epochs=1, accelerator="cpu")]
    assert Needs.of(sections) == Needs(2, on_cpu=True, single=True)
    assert Needs.of([TrainSection(epochs=1, devices=2)]) == Needs(None, on_cpu=False, single=False)
    assert Needs(2, True, True).joined(Needs(4, False, False)) == Needs(4, False, False)
