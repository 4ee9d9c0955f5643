"""Run folders as a comparison sees them: what was configured, which seed it is, what was measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from robustmm.engine.run_folder import RunFolder
from robustmm.errors import CheckpointError, RobustmmError
from robustmm.report.results import read_results

#: The plan that `robustmm sweep` leaves in its folder; it names the keys that follow the seed.
PLAN = "sweep.json"
#: What changes no score, or is checked by the results themselves.
INDIFFERENT = (
    "name",
    "callbacks",
    "evaluation",
    "data.workers",
    "data.pin_memory",
    "train.accelerator",
    "train.threads",
    "train.log_every",
    "train.checkpoint_every",
)


@dataclass(frozen=True)
class FinishedRun:
    """A run that came to its end.

    Args:
        path: Its folder.
        name: Of its configuration.
        recipe: Dotted key -> value of everything that can change a score, seeds left out.
        replicate: Dotted key -> value of the seeds and splits.
        protocols: Name -> record.
        environment: Versions and commit; empty where the file is missing.
    """

    path: Path
    name: str
    recipe: Mapping[str, Any]
    replicate: Mapping[str, Any]
    protocols: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, Any]

    @property
    def which(self) -> tuple[tuple[str, Any], ...]:
        """The replicate as a key."""
        return tuple(sorted(self.replicate.items()))


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """Run folders among ``folders`` and below those that are none, each once, in order.

    Of a sweep's folder the order of groups is that of its plan, of others that of names. A run's own subfolders, such
    as customised models, are no runs of the comparison.

    Raises:
        CheckpointError: a sweep's plan is damaged.
        RobustmmError: a folder is not there, or there is no run in it.
    """
    problems = [f"{folder} is no folder" for folder in folders if not folder.is_dir()]
    found = {folder: _in_order(folder, _below(folder)) for folder in folders if folder.is_dir()}
    problems += [f"{folder} holds no run: no config.yaml in it or below" for folder, runs in found.items() if not runs]
    if problems:
        raise RobustmmError("\n".join(problems))
    unique = {run.resolve(): run for runs in found.values() for run in runs}
    return list(unique.values())


def _below(folder: Path) -> Iterator[Path]:
    if (folder / "config.yaml").is_file():
        yield folder
        return
    for child in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        yield from _below(child)


def _in_order(folder: Path, runs: Iterable[Path]) -> list[Path]:
    """Runs by group as the plan of a sweep in ``folder`` lists them; those that it does not know come last."""
    ranks = {group: place for place, group in enumerate(_plan(folder / PLAN).groups)}
    return sorted(runs, key=lambda run: ranks.get(run.relative_to(folder).parent.as_posix(), len(ranks)))


def split_keys(folders: Sequence[Path]) -> list[str]:
    """Keys that follow the seed by the plans of sweeps in ``folders`` or right above them."""
    plans = dict.fromkeys(folder / PLAN for given in folders for folder in (given, *given.resolve().parents[:3]))
    found: dict[str, None] = {}
    for plan in plans:
        found |= dict.fromkeys(_plan(plan).varied)
    return list(found)


class _Plan(NamedTuple):
    """Of a sweep: the keys that follow the seed, and the groups in order."""

    varied: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


def _plan(path: Path) -> _Plan:
    """What a sweep wrote down; empty where there was none."""
    if not path.is_file():
        return _Plan()
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        return _Plan(tuple(plan["varied"]), tuple(dict.fromkeys(member["group"] for member in plan["members"])))
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); delete it and name the keys with --split") from error


def read_run(path: Path, splits: Sequence[str] = ()) -> FinishedRun:
    """Read a run.

    Args:
        path: Its folder.
        splits: Dotted keys that name the split, beside those called seed.

    Raises:
        CheckpointError: it did not finish, or its results cannot be read.
    """
    folder = RunFolder(path)
    if not folder.done:
        failed = "failed" if (path / "FAILED").is_file() else "did not finish"
        raise CheckpointError(f"{path} {failed}; finish it with --resume, run it again, or leave it out")
    keys = _keys(folder.config)
    replicate = {key: value for key, value in keys.items() if _is_seed(key) or key in splits}
    recipe = {key: value for key, value in keys.items() if key not in replicate and not under(key, INDIFFERENT)}
    environment = path / "env.json"
    return FinishedRun(
        path,
        str(keys.get("name", path.name)),
        recipe,
        replicate,
        read_results(folder.results)["protocols"],
        json.loads(environment.read_text(encoding="utf-8")) if environment.is_file() else {},
    )


def _keys(path: Path) -> dict[str, Any]:
    """Dotted keys of a resolved configuration."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    if not isinstance(tree, Mapping):
        raise CheckpointError(f"{path} is damaged: it is no mapping of keys; leave the run out")
    return dict(flat(tree))


def _is_seed(key: str) -> bool:
    """The run's seed, and every seed of its data: of the split, of the carved validation part, of drawn samples."""
    last = key.rpartition(".")[2]
    return key == "seed" or (key.startswith("data.") and (last == "seed" or last.endswith("_seed")))


def under(key: str, places: Sequence[str]) -> bool:
    """Whether a dotted key is one of ``places`` or lies below one."""
    return any(key == place or key.startswith(f"{place}.") for place in places)


def flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of nested mappings; lists are values."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def replicate_texts(runs: Sequence[FinishedRun]) -> dict[tuple[tuple[str, Any], ...], str]:
    """Each replicate in words, such as ``seed 3 (split_seed 3)``, without keys that are the same in all runs."""
    values: dict[str, set[str]] = {}
    for run in runs:
        for key, value in run.replicate.items():
            values.setdefault(key, set()).add(str(value))
    return {run.which: _replicate_text(run, [key for key in values if len(values[key]) > 1]) for run in runs}


def _replicate_text(run: FinishedRun, telling: Sequence[str]) -> str:
    first, *others = [key for key in run.replicate if key in telling] or list(run.replicate)[:1]
    texts = [f"{key.rpartition('.')[2]} {run.replicate[key]}" for key in sorted([first, *others], key="seed".__ne__)]
    return texts[0] + (f" ({', '.join(texts[1:])})" if others else "")
