"""``robustmm sweep --tune``: trials as runs in the pool, the best one's configuration as a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from robustmm.commands.pool_progress import run_locally
from robustmm.errors import ConfigError
from robustmm.plugin_manager import plugins_dirs
from robustmm.registry import Registry
from robustmm.sweep.devices import cuda_devices
from robustmm.sweep.plan import Plan, make_plan
from robustmm.sweep.pool import locked
from robustmm.sweep.tasks import Needs, TrainTask, share_machine, usable_cores
from robustmm.sweep.tune import Found, Search, Space, mean_score, parse_space
from robustmm.sweep.values import parse_axes

BEST = "best.yaml"
#: More runs at a time would propose many trials without having seen the score of one.
MOST_AT_ONCE = 16


@dataclass(frozen=True)
class TuneRequest:
    """What the user asked for.

    Args:
        configs: One file.
        overrides: With one value each.
        seeds: Every trial is trained with each of them.
        vary: Keys that follow the seed.
        tune: See `parse_space`.
        trials: How many there are to be in the end.
        jobs: Runs at a time; None: as many as the machine carries.
        folder: Of the search.
    """

    configs: Sequence[str]
    overrides: Sequence[str]
    seeds: Sequence[int]
    vary: Sequence[str]
    tune: Sequence[str]
    trials: int
    jobs: int | None
    folder: Path

    def plan(self, overrides: Sequence[str], registry: Registry) -> Plan:
        """The runs of one trial."""
        return make_plan(self.configs, [*self.overrides, *overrides], self.seeds, self.vary, registry)


def tune_command(request: TuneRequest, registry: Registry) -> None:
    """Search, and say what is best.

    Raises:
        ConfigError: options do not fit, or an end of a range is no valid setting.
    """
    spaces = _checked_spaces(request)
    trial = _first_plan(request, spaces, registry)
    facts = {"configs": request.configs, "overrides": request.overrides, "seeds": request.seeds}
    facts |= {"vary": request.vary, "tune": request.tune}
    jobs = request.jobs or _jobs(trial.needs)
    with locked(request.folder) as lock:

        def train(trials: Mapping[int, Sequence[str]]) -> dict[int, Found | None]:
            return _train(request, trials, registry, lock, jobs, trial)

        search = Search(request.folder, spaces, facts)
        best = search.run(request.trials, max(1, jobs // len(request.seeds)), train)
        source = _folder(request, best.number, request.seeds[0]) / "config.yaml"
        path = request.folder / BEST
        said = f"best trial {best.number}: {best.score:.4f} on validation, {', '.join(best.overrides)}"
        path.write_text(f"# {said}\n{source.read_text(encoding='utf-8')}", encoding="utf-8")
    click.echo(said)
    click.echo(f"its configuration: {path}")


def _jobs(needs: Needs) -> int:
    """As many as the machine carries, which decides how many trials are proposed together."""
    devices = () if needs.on_cpu else cuda_devices()
    return share_machine(MOST_AT_ONCE, None, needs, cores=usable_cores(), devices=devices).jobs


def _checked_spaces(request: TuneRequest) -> list[Space]:
    if len(request.configs) > 1:
        raise ConfigError([f"--tune searches one configuration, got {', '.join(request.configs)}"])
    several = [axis.key for axis in parse_axes(request.overrides) if len(axis.values) > 1]
    if several:
        raise ConfigError(
            [f"-o {key}: several values and --tune; put the key into --tune {key}=..." for key in several]
        )
    spaces = [parse_space(text) for text in request.tune]
    keys = [space.key for space in spaces]
    twice = [key for place, key in enumerate(keys) if key in keys[:place]]
    if twice:
        raise ConfigError([f"--tune {key}: given twice" for key in twice])
    return spaces


def _first_plan(request: TuneRequest, spaces: Sequence[Space], registry: Registry) -> Plan:
    """The runs at the lower ends; every end and listed value is checked before anything is trained."""
    lower = {space.key: f"{space.key}={space.ends()[0]}" for space in spaces}
    problems: list[str] = []
    for space in spaces:
        for value in space.ends():
            try:
                request.plan(list((lower | {space.key: f"{space.key}={value}"}).values()), registry)
            except ConfigError as error:
                problems += error.problems
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return request.plan(list(lower.values()), registry)


def _folder(request: TuneRequest, number: int, seed: int) -> Path:
    return request.folder / "trials" / f"{number:04d}" / f"s{seed}"


def _train(
    request: TuneRequest,
    trials: Mapping[int, Sequence[str]],
    registry: Registry,
    lock: int,
    jobs: int,
    first: Plan,
) -> dict[int, Found | None]:
    tasks: dict[int, list[TrainTask]] = {}
    for number, overrides in trials.items():
        tasks[number] = [
            TrainTask(
                f"trial {number} seed {one.seed}",
                _folder(request, number, one.seed),
                tuple(one.arguments()),
                plugins_dirs(),
            )
            for one in request.plan(overrides, registry).members
        ]
    everything = [task for own in tasks.values() for task in own]
    run_locally(everything, lock, first.needs, jobs)
    return {
        number: mean_score([task.folder for task in own]) if all(task.done for task in own) else None
        for number, own in tasks.items()
    }
