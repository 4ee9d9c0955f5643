"""Training runs as jobs of a cluster, through submitit, which is imported when it is asked for."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from robustmm.errors import ConfigError, RobustmmError
from robustmm.sweep.tasks import Outcome, TrainTask, outcome_of

#: Seconds between two looks at the jobs.
PAUSE = 1.0
#: Options with one meaning on every cluster, short names first; others are Slurm's own.
SHORT = {"timeout": "timeout_min", "gpus": "gpus_per_node", "cpus": "cpus_per_task", "memory_gb": "mem_gb"}
SHARED = frozenset({*SHORT.values(), "nodes", "tasks_per_node", "name", "stderr_to_stdout"})


def run_submitted(
    tasks: Sequence[TrainTask],
    folder: Path,
    options: Sequence[str],
    on_start: Callable[[TrainTask], None],
    on_end: Callable[[Outcome], None],
) -> list[Outcome]:
    """Submit every task that is not done, wait for all of them; as `robustmm.sweep.pool.run_pool`.

    Args:
        tasks: In order.
        folder: Of the sweep; submitit's files go below it.
        options: ``key=value``; ``cluster=local`` or ``cluster=debug`` take the place of Slurm.
        on_start: Told as a task is submitted.
        on_end: Told as one ends.

    Raises:
        RobustmmError: submitit is missing, or refuses an option.
        KeyboardInterrupt: asked to stop; the jobs were cancelled and resume next time.
    """
    cluster, parameters = parse_options(options)
    outcomes = [Outcome(task, "kept") for task in tasks if task.done]
    for outcome in outcomes:
        on_end(outcome)
    kept = {outcome.task for outcome in outcomes}
    waiting = [task for task in tasks if task not in kept]
    jobs = _submit(waiting, folder, cluster, parameters, on_start) if waiting else []
    began = time.monotonic()
    try:
        while jobs:
            for task, job in [one for one in jobs if one[1].done()]:
                jobs.remove((task, job))
                seconds = time.monotonic() - began
                outcomes.append(outcome_of(task, _code(job), seconds, stopping=False))
                on_end(outcomes[-1])
            time.sleep(PAUSE if jobs and cluster != "debug" else 0)
    except KeyboardInterrupt:
        for _, job in jobs:
            job.cancel()
        raise
    return outcomes


def parse_options(options: Sequence[str]) -> tuple[str | None, dict[str, Any]]:
    """``key=value`` texts as the cluster's name and parameters as submitit calls them.

    Raises:
        ConfigError: every text that is no ``key=value``.
    """
    problems = [f"--slurm {text}: expected key=value, such as partition=gpu" for text in options if "=" not in text]
    if problems:
        raise ConfigError(problems)
    found: dict[str, Any] = {}
    for text in options:
        key, _, value = text.partition("=")
        name = SHORT.get(key.strip(), key.strip())
        name = name if name in SHARED or name == "cluster" or name.startswith("slurm_") else f"slurm_{name}"
        found[name] = int(value) if value.isdigit() else value
    cluster = found.pop("cluster", None)
    return cluster, found


def _submit(
    tasks: Sequence[TrainTask],
    folder: Path,
    cluster: str | None,
    parameters: dict[str, Any],
    on_start: Callable[[TrainTask], None],
) -> list[tuple[TrainTask, Any]]:
    try:
        import submitit
    except ImportError as error:
        raise RobustmmError(
            "--launcher submitit needs the package submitit; install it with: pip install 'robustmm[slurm]'"
        ) from error
    try:
        executor = submitit.AutoExecutor(folder=folder / "submitit" / "%j", cluster=cluster)
        executor.update_parameters(**{"name": folder.name, **parameters})
    except (AssertionError, NameError, ValueError, TypeError, RuntimeError) as error:  # submitit's ways to refuse
        raise RobustmmError(f"--slurm: submitit refuses: {' '.join(str(error).split())}") from error
    with executor.batch():
        jobs = [executor.submit(train_in_job, task.command(), str(task.output), os.getcwd()) for task in tasks]
    for task in tasks:
        on_start(task)
    return list(zip(tasks, jobs, strict=True))


def train_in_job(command: Sequence[str], output: str, place: str) -> int:
    """What a job does: the command's exit code, with its output in a file."""
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    with open(output, "ab") as file:
        return subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, cwd=place, check=False).returncode


def _code(job: Any) -> int:
    """The exit code, 1 where the job itself was lost."""
    return int(job.result()) if job.exception() is None else 1
