"""A run's folder: ``runs/<config>/<time>-s<seed>/``, never overwritten by accident."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from robustmm.errors import CheckpointError

#: Distributions whose versions decide what a run computes.
RELEVANT = ("robustmm", "torch", "torchvision", "lightning", "numpy", "timm", "safetensors", "pydantic")


@dataclass(frozen=True)
class RunFolder:
    """Where a run writes.

    Args:
        path: The folder.
    """

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Folder of ``last.safetensors`` and ``best.safetensors``."""
        return self.path / "checkpoints"

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def results(self) -> Path:
        """Every protocol's results."""
        return self.path / "results.json"

    @property
    def signature(self) -> Path:
        """What the model takes and gives; see `robustmm.signature`."""
        return self.checkpoints / "model.json"

    @property
    def done(self) -> bool:
        """Whether the run came to its end."""
        return (self.path / "DONE").is_file()

    def require(self) -> None:
        """Make sure that this is a run's folder.

        Raises:
            CheckpointError: it has no ``config.yaml``.
        """
        if not self.config.is_file():
            raise CheckpointError(f"{self.path} is no run folder: it has no {self.config.name}")

    def begin(self, config_yaml: str, sources: Sequence[Path]) -> None:
        """Write down what is about to run, and with what."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.config.write_text(config_yaml, encoding="utf-8")
        if sources:
            (self.path / "config.source").mkdir(exist_ok=True)
        for number, source in enumerate(sources):
            shutil.copyfile(source, self.path / "config.source" / f"{number}-{source.name}")
        (self.path / "env.json").write_text(json.dumps(environment(), indent=2) + "\n", encoding="utf-8")
        self._clear_marks()

    def _clear_marks(self) -> None:
        for mark in ("DONE", "FAILED"):
            (self.path / mark).unlink(missing_ok=True)

    def finish(self) -> None:
        """Mark the run as done."""
        self._clear_marks()
        (self.path / "DONE").write_text(_now() + "\n", encoding="utf-8")

    def fail(self, error: BaseException) -> None:
        """Mark the run as failed, with the traceback."""
        self._clear_marks()
        text = "".join(traceback.format_exception(error))
        (self.path / "FAILED").write_text(f"{_now()}\n{text}", encoding="utf-8")

    def failure(self) -> str | None:
        """The last line of why the run failed; None where it is not marked as failed."""
        mark = self.path / "FAILED"
        if not mark.is_file():
            return None
        lines = mark.read_text(encoding="utf-8").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "no reason is written down")


def new_folder(root: Path, name: str, seed: int, *, given: Path | None = None, overwrite: bool = False) -> RunFolder:
    """A folder for a new run. One that is not named by the user is made at once, so that no other run takes it.

    Args:
        root: Usually ``runs``.
        name: Of the configuration.
        seed: Of the run.
        given: A folder that the user named instead.
        overwrite: Empty a folder that is not empty.

    Raises:
        CheckpointError: the folder is not empty, or a file.
    """
    if given is None:
        return RunFolder(_unused(root / name / f"{datetime.now().strftime('%Y%m%d-%H%M%S')}-s{seed}"))
    if given.is_file():
        raise CheckpointError(f"{given} is a file; name a folder")
    if given.exists() and any(given.iterdir()):
        if not overwrite:
            raise CheckpointError(f"{given} is not empty; add --resume to continue it, or --overwrite to replace it")
        if not (given / "config.yaml").is_file():
            raise CheckpointError(f"{given} does not look like a run folder (no config.yaml); not overwriting it")
        shutil.rmtree(given)
    return RunFolder(given)


def _unused(path: Path) -> Path:
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
        candidate = path.with_name(path.name + suffix)
        try:
            candidate.mkdir(parents=True)
        except FileExistsError:
            continue
        return candidate
    raise CheckpointError(f"{path} and a thousand like it exist")


def unfinished_folder(root: Path, name: str, seed: int, *, given: Path | None = None) -> RunFolder:
    """The run to resume: the folder that the user named, or the newest unfinished one of this configuration and seed.

    Raises:
        CheckpointError: there is none.
    """
    if given is not None:
        if not (given / "config.yaml").is_file():
            raise CheckpointError(f"nothing to resume: {given} is not a run folder (no config.yaml)")
        return RunFolder(given)
    folders = [path.parent for path in (root / name).glob("*/config.yaml")]
    runs = {age: RunFolder(folder) for folder in folders if (age := _age(folder, seed))}
    open_runs = [age for age, run in runs.items() if not run.done]
    if not open_runs:
        finished = f" ({len(runs)} finished)" if runs else ""
        raise CheckpointError(
            f"nothing to resume: no unfinished run of '{name}' with seed {seed} under {root / name}{finished}; "
            f"start one without --resume"
        )
    return runs[max(open_runs)]


def _age(folder: Path, seed: int) -> tuple[str, int] | None:
    """Time and number within its second, of a folder named by `new_folder`; None for another seed."""
    found = re.fullmatch(rf"(.+)-s{seed}(?:-(\d+))?", folder.name)
    return None if found is None else (found[1], int(found[2] or 1))


def environment() -> dict[str, Any]:
    """Versions, machine and commit, for reproduction."""
    import torch  # imported late: `robustmm.engine.run_folder` itself is light

    versions: dict[str, str | None] = {}
    for name in RELEVANT:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "time": _now(),
        "command": " ".join(sys.argv),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu_count": os.cpu_count(),
        "gpus": devices,
        "cuda": torch.version.cuda,
        "versions": versions,
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The commit of the current folder's repository, marked where it has changes; None outside one."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
