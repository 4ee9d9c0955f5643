"""Tiny runs through the command line: a configuration, plugins that break or stop a run, and readers of run folders."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

TINY: dict[str, Any] = {
    "data": {
        "dataset": {"name": "synthetic", "modalities": 2, "samples": 32, "size": 8, "noise": 0.3},
        "batch_size": 8,
    },
    "model": {"encoders": {"default": {"name": "mlp", "hidden": [8]}}},
    "method": "plain",
    "optimizer": {"name": "adamw", "lr": 1e-2},
    "train": {"epochs": 2, "threads": 1, "accelerator": "cpu", "log_every": 1},
}

#: A schedule that sends the process a signal before the step whose number, over all trainings, the environment names.
STOP = """
import os
from robustmm import Component, Options, Schedule, hookimpl
from robustmm import ScheduleValues

calls = 0

class Stop(Schedule):
    def __call__(self, step):
        global calls
        calls += 1
        if calls == int(os.environ.get("STOP_AT_CALL", 0)):
            os.kill(os.getpid(), int(os.environ["STOP_SIGNAL"]))
        return ScheduleValues(1.0)

@hookimpl
def robustmm_register_schedules(register):
    global calls
    calls = 0
    register(Component("stop", Stop, Options, "Sends a signal.", "test"))
"""

#: A method whose loss is not a number from step 3 on.
BROKEN = """
import torch
from robustmm import Component, LossTerm, Method, Options, hookimpl

class Broken(Method):
    sampler = "uniform"

    def losses(self, output, batch, clock):
        terms = super().losses(output, batch, clock)
        if clock.step >= 3:
            terms["extra"] = LossTerm(output.logits.mean() * float("nan"), "auxiliary")
        return terms

@hookimpl
def robustmm_register_methods(register):
    register(Component("broken", Broken, Options, "Breaks.", "test"))
"""

#: A head that predicts its bias whatever it is given.
CONSTANT = """
import torch
from torch import nn
from robustmm import Component, Head, Options, hookimpl

class Constant(Head):
    def __init__(self, channels, num_outputs):
        super().__init__()
        self.num_outputs = num_outputs
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, fused, size):
        first = nn.functional.one_hot(torch.zeros(len(fused[-1]), dtype=torch.int64), self.num_outputs)
        return first.float() + 0 * self.weight

@hookimpl
def robustmm_register_heads(register):
    register(Component("constant", Constant, Options, "Says the first class.", "test"))
"""


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings merged, except that a mapping with a ``name`` replaces what was there and None removes it."""
    result = {key: value for key, value in base.items() if changes.get(key, value) is not None}
    for key, value in changes.items():
        if value is None:
            continue
        deep = isinstance(value, dict) and "name" not in value and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if deep else value
    return result


def write_config(folder: Path, name: str = "tiny", **changes: Any) -> str:
    """Write `TINY` with changes as ``<name>.yaml``."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(merged(TINY, changes)), encoding="utf-8")
    return str(path)


def write_plugins(folder: Path, **sources: str) -> str:
    """Write plugin files into ``plugins/``, for ``--plugins-dir``."""
    place = folder / "plugins"
    place.mkdir(exist_ok=True)
    for name, source in sources.items():
        (place / f"{name}.py").write_text(source, encoding="utf-8")
    return str(place)


def records(folder: Path, *kinds: str) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl`` of some kinds, without what differs from run to run."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        {key: value for key, value in line.items() if key != "samples_per_second"}
        for line in lines
        if not kinds or line["kind"] in kinds
    ]


def results(folder: Path) -> dict[str, Any]:
    """The record of the combinations."""
    record: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return dict(record["protocols"]["combinations"])


def equal_runs(one: Path, other: Path) -> bool:
    """Whether two runs ended with the same bytes: weights, results, and records of steps and epochs."""
    files = ("checkpoints/best.safetensors", "checkpoints/last.safetensors", "results.json", "eval/combinations.csv")
    same = [(one / file).read_bytes() == (other / file).read_bytes() for file in files]
    return all(same) and records(one, "log", "epoch") == records(other, "log", "epoch")


def _child(arguments: list[str], environment: Mapping[str, str], output: str) -> None:
    os.environ.update(environment)
    with open(output, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from robustmm.cli import run

    raise SystemExit(run(arguments))


def in_child(arguments: list[str], environment: Mapping[str, str], output: Path) -> int:
    """Run a command line in a process of its own; its exit code, or minus the signal that ended it.

    The fork server imports torch once; each child then starts in milliseconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["robustmm.run", "robustmm.report.html", "torch.utils.tensorboard"])
    process = context.Process(target=_child, args=(arguments, dict(environment), str(output)))
    process.start()
    process.join(120)
    if process.exitcode is None:
        os.kill(process.pid or 0, signal.SIGKILL)
        raise AssertionError(f"still running after two minutes: {arguments}")
    return process.exitcode
