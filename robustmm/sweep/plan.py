"""The members of a sweep: every configuration, combination of values and seed, all checked before one runs."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from robustmm.config.load import load_config
from robustmm.config.render import to_yaml
from robustmm.config.schema import RunConfig
from robustmm.errors import CheckpointError, ConfigError
from robustmm.registry import Registry
from robustmm.sweep.tasks import Needs
from robustmm.sweep.values import Axis, Varied, parse_axes, parse_varied

PLAN = "sweep.json"
FORMAT = 1
#: Longest part of a folder's name that a value gives.
LONGEST = 60


@dataclass(frozen=True)
class Member:
    """One run of a sweep.

    Args:
        name: Its folder below the sweep's, ``<group>/s<seed>``.
        group: Runs that differ in the seed alone have one.
        seed: Of the run, and of the keys that follow it.
        config: Configuration file.
        overrides: On top of it, in order.
        digest: Of the resolved configuration, so that a changed file is noticed.
    """

    name: str
    group: str
    seed: int
    config: str
    overrides: tuple[str, ...]
    digest: str = ""

    def arguments(self) -> list[str]:
        """Of ``robustmm train``, without the folder."""
        return ["-c", self.config, *(part for text in self.overrides for part in ("-o", text))]


@dataclass(frozen=True)
class Plan:
    """A sweep.

    Args:
        members: In the order in which they are started.
        varied: Keys that follow the seed; a comparison takes them for the split.
        needs: What members ask of the machine.
    """

    members: tuple[Member, ...]
    varied: tuple[str, ...] = ()
    needs: Needs = field(default_factory=Needs)

    def groups(self) -> dict[str, list[Member]]:
        """Members by group."""
        found: dict[str, list[Member]] = {}
        for member in self.members:
            found.setdefault(member.group, []).append(member)
        return found


def make_plan(
    configs: Sequence[str], overrides: Sequence[str], seeds: Sequence[int], vary: Sequence[str], registry: Registry
) -> Plan:
    """Every member, its configuration checked with the options of its components.

    Args:
        configs: Files, each a configuration of its own.
        overrides: ``key=value`` or ``key=a,b``.
        seeds: At least one.
        vary: See `parse_varied`.
        registry: Of the loaded plugins.

    Raises:
        ConfigError: everything that is wrong, in any member.
    """
    axes, varied = parse_axes(overrides), [parse_varied(text, seeds) for text in vary]
    problems = _clashes(configs, axes, varied)
    members, loaded = [], []
    for member in _members(configs, axes, seeds, varied):
        try:
            config = load_config([member.config], member.overrides, registry).config
        except ConfigError as error:
            problems += error.problems
            continue
        members.append(replace(member, digest=digest_of(config)))
        loaded.append(config)
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    needs = Needs.of(config.train for config in loaded)
    return Plan(tuple(members), tuple(one.key for one in varied), needs)


def digest_of(config: RunConfig) -> str:
    """Short, and equal for configurations that are equal value for value."""
    return hashlib.sha256(to_yaml(config).encode()).hexdigest()[:16]


def _clashes(configs: Sequence[str], axes: Sequence[Axis], varied: Sequence[Varied]) -> list[str]:
    stems = [Path(config).stem for config in configs]
    problems = [
        f"-c {config}: another configuration is called '{stem}' too; rename one, since folders are named after them"
        for place, (config, stem) in enumerate(zip(configs, stems, strict=True))
        if stem in stems[:place]
    ]
    taken = [one.key for one in varied]
    problems += [f"--vary {key}: given twice" for place, key in enumerate(taken) if key in taken[:place]]
    return problems + [
        f"-o {axis.key}: --vary sets this key too; give one of them" for axis in axes if axis.key in taken
    ]


def _members(
    configs: Sequence[str], axes: Sequence[Axis], seeds: Sequence[int], varied: Sequence[Varied]
) -> Iterator[Member]:
    """Seed by seed, so that an early look at a sweep sees every group."""
    fixed = [f"{axis.key}={axis.values[0]}" for axis in axes if len(axis.values) == 1]
    turning = [axis for axis in axes if len(axis.values) > 1]
    titles = _titles([axis.key for axis in turning])
    for place, seed in enumerate(seeds):
        follow = [f"seed={seed}", *(one.override(seed, place) for one in varied)]
        for config in configs:
            for values in product(*(axis.values for axis in turning)):
                chosen = [f"{axis.key}={value}" for axis, value in zip(turning, values, strict=True)]
                parts = [f"{title}={_slug(value)}" for title, value in zip(titles, values, strict=True)]
                group = "-".join([Path(config).stem, *parts])
                yield Member(f"{group}/s{seed}", group, seed, str(config), (*fixed, *chosen, *follow))


def _titles(keys: Sequence[str]) -> list[str]:
    """The last part of each key, ``method`` for ``method.name``; in full where two are the same."""
    short = [key.removesuffix(".name").rpartition(".")[2] for key in keys]
    return [name if short.count(name) == 1 else key for name, key in zip(short, keys, strict=True)]


def _slug(value: str) -> str:
    """A value as a part of a folder's name; what is cut off or left out shows as a digest."""
    plain = re.sub(r"[^\w.+-]+", "_", value, flags=re.ASCII).strip("_.")
    if plain == value and len(plain) <= LONGEST:
        return plain
    return f"{plain[:LONGEST]}~{hashlib.sha256(value.encode()).hexdigest()[:6]}"


def settle_plan(folder: Path, plan: Plan, *, extend: bool) -> Plan:
    """Write the plan down, or make sure that the folder's plan is the same.

    Args:
        folder: Of the sweep.
        plan: That was asked for.
        extend: Add members to an earlier plan.

    Returns:
        The plan to run: with ``extend`` the earlier members too.

    Raises:
        CheckpointError: the folder has another plan.
    """
    path = folder / PLAN
    if path.is_file():
        plan = _joined(path, plan, extend=extend)
    elif folder.is_dir() and any(not child.name.startswith(".") for child in folder.iterdir()):
        raise CheckpointError(f"{folder} is not empty and has no {PLAN}; name another --folder")
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{PLAN}.tmp")
    temporary.write_text(json.dumps({"format": FORMAT, **asdict(plan)}, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return plan


def read_plan(path: Path) -> Plan:
    """Read ``sweep.json``.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        data: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        members = tuple(Member(**{**one, "overrides": tuple(one["overrides"])}) for one in data["members"])
        return Plan(members, tuple(data["varied"]), Needs(**data["needs"]))
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); start the sweep in another --folder") from error


def _joined(path: Path, plan: Plan, *, extend: bool) -> Plan:
    before = read_plan(path)
    old, new = ({member.name: member for member in one.members} for one in (before, plan))
    changed = [name for name in old.keys() & new.keys() if old[name].digest != new[name].digest]
    if changed:
        raise CheckpointError(
            f"{path.parent} began with another configuration of {_some(sorted(changed))}; its results would not belong "
            f"together: take a new --folder"
        )
    added, gone = [name for name in new if name not in old], [name for name in old if name not in new]
    if (added or gone) and not extend:
        told = [f"{_some(added)} are new"] if added else []
        told += [f"{_some(gone)} are no longer asked for"] if gone else []
        raise CheckpointError(
            f"{path.parent} has another plan: {' and '.join(told)}; add --extend to add to it, or take a new --folder"
        )
    members = (*before.members, *(new[name] for name in added))
    varied = tuple(dict.fromkeys((*before.varied, *plan.varied)))
    return Plan(members, varied, before.needs.joined(plan.needs))


def _some(names: Sequence[str], shown: int = 4) -> str:
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
