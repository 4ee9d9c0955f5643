"""Runs of one recipe and several seeds as a group, with a label that says what sets it apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustmm.report.runs import FinishedRun, under

#: Keys that a label names first, since they are what people compare; these two stand without their key.
FIRST = ("method.name", "balancer.name", "model.fusion.name", "model.missing_policy.name")
BARE = ("method.name", "balancer.name")
ABSENT = "none"


@dataclass(frozen=True)
class Group:
    """Runs that differ in seed and split alone.

    Args:
        label: What sets it apart from the other groups.
        differences: Dotted key -> value of every key that is not the same in all groups.
        runs: By replicate, in order.
    """

    label: str
    differences: Mapping[str, Any]
    runs: tuple[FinishedRun, ...]

    @property
    def name(self) -> str:
        """Of the configuration."""
        return self.runs[0].name


def group_runs(runs: Sequence[FinishedRun], by: Sequence[str] = ()) -> list[Group]:
    """Put runs of one recipe together, in the order of their first runs.

    Args:
        runs: At least one.
        by: Keys, or sections of keys, that labels name; by default as few as tell the groups apart.
    """
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(repr(sorted(run.recipe.items())), []).append(run)
    members = list(groups.values())
    differences = [_differing(own[0].recipe, [other[0].recipe for other in members]) for own in members]
    labels = _labels(differences, [own[0].name for own in members], by)
    return [
        Group(label, own, tuple(sorted(group, key=lambda run: _order(run.which))))
        for label, own, group in zip(labels, differences, members, strict=True)
    ]


def _order(which: Sequence[tuple[str, Any]]) -> list[tuple[str, bool, float, str]]:
    """Numbers by size, before texts."""
    return [
        (key, not isinstance(value, int | float), value if isinstance(value, int | float) else 0.0, str(value))
        for key, value in sorted(which, key=lambda item: item[0] != "seed")
    ]


def _differing(own: Mapping[str, Any], everyone: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    keys = dict.fromkeys(key for recipe in everyone for key in recipe)
    missing = object()
    return {
        key: own[key] for key in keys if key in own and any(recipe.get(key, missing) != own[key] for recipe in everyone)
    }


def _labels(differences: Sequence[Mapping[str, Any]], names: Sequence[str], by: Sequence[str]) -> list[str]:
    if len(differences) == 1:
        return list(names)
    keys = list(dict.fromkeys(key for own in differences for key in own))
    keys.sort(key=lambda key: FIRST.index(key) if key in FIRST else len(FIRST))
    if by:
        keys = [key for key in keys if under(key, by)]
    chosen: list[str] = []
    for key in keys:
        if _distinct(differences, [*chosen, key]) > _distinct(differences, chosen):
            chosen.append(key)
    texts = [_text(own, chosen) or name for own, name in zip(differences, names, strict=True)]
    if len(set(texts)) < len(texts):
        texts = [text if text == name else f"{text} ({name})" for text, name in zip(texts, names, strict=True)]
    return [
        f"{text} #{texts[:place].count(text) + 1}" if texts.count(text) > 1 else text
        for place, text in enumerate(texts)
    ]


def _distinct(differences: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> int:
    return len({repr([own.get(key, ABSENT) for key in keys]) for own in differences})


def _text(own: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(_part(key, own[key]) for key in keys if key in own)


def _part(key: str, value: Any) -> str:
    if key in BARE:
        return str(value)
    path = key.removesuffix(".name").split(".")
    return f"{path[-1]}={'null' if value is None else value}"
