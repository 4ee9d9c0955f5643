"""Why runs must not be compared: every reason in a sentence, with its repair."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from robustmm.errors import did_you_mean
from robustmm.report.groups import Group
from robustmm.report.measures import Layout, main_metric, point_names
from robustmm.report.runs import FinishedRun, replicate_texts, under

#: Below this no spread over seeds can be told.
FEWEST_SEEDS = 3
#: Keys that make scores incomparable where they differ, unless ``--by`` says that they are what is compared.
PROTECTED = ("data.dataset", "data.modalities", "data.validation", "model.missing_policy")
DATASET = "data.dataset.name"
#: What a record says of how a protocol was run.
SETTINGS = ("adapter", "adapter_options", "corruption_seed", "severities", "split")
#: Examples in one sentence.
SHOWN = 3

Record = Mapping[str, Any]


def refusals(
    groups: Sequence[Group], protocol: str, layout: Layout, metric: str | None, by: Sequence[str]
) -> list[str]:
    """Every reason not to compare; empty where there is none.

    Args:
        groups: Their runs all have the protocol.
        protocol: Which results.
        layout: Of the protocol.
        metric: That was asked for; None means each run's main score.
        by: Keys that were named as what is compared.
    """
    found = list(_unknown_keys(groups, by)) or list(_datasets(groups, by))
    if found:  # everything else would follow from these
        return found
    found = [*_seeds(groups), *_recipes(groups, by), *_scores(groups, protocol, metric)]
    if not found:  # what follows compares run with run, which needs equal seeds and one score
        found += _records(groups, protocol, by)
        found += _points(groups, protocol, layout)
    return found


def _unknown_keys(groups: Sequence[Group], by: Sequence[str]) -> Iterator[str]:
    known = dict.fromkeys(key for group in groups for key in group.runs[0].recipe)
    for name in by:
        if not any(under(key, [name]) for key in known):
            yield f"--by {name}: the runs' configurations have no such key{did_you_mean(name, known)}"


def _datasets(groups: Sequence[Group], by: Sequence[str]) -> Iterator[str]:
    names = dict.fromkeys(str(group.runs[0].recipe.get(DATASET, "not given")) for group in groups)
    if len(names) > 1 and not under(DATASET, by):
        yield f"different data sets do not compare: {', '.join(names)}; give runs of one of them"


def _seeds(groups: Sequence[Group]) -> Iterator[str]:
    words = replicate_texts([run for group in groups for run in group.runs])
    for group in groups:
        seen: dict[tuple[tuple[str, Any], ...], FinishedRun] = {}
        for run in group.runs:
            if run.which in seen:
                yield (
                    f"{group.label}: {seen[run.which].path} and {run.path} are the same seed and split "
                    f"({words[run.which]}); leave one out"
                )
            seen[run.which] = run
        if len(seen) < FEWEST_SEEDS:
            yield f"{group.label}: {_count(len(seen), 'seed')}; each group needs at least {FEWEST_SEEDS}"
        lacking = [words[which] for which in words if which not in seen]
        if lacking:
            yield (
                f"{group.label}: {_some(lacking)} missing, which other groups "
                f"have; train {'it' if len(lacking) == 1 else 'them'}, or leave the others' runs out"
            )


def _recipes(groups: Sequence[Group], by: Sequence[str]) -> Iterator[str]:
    for section in PROTECTED:
        keys = dict.fromkeys(key for group in groups for key in group.differences if under(key, [section]))
        for key in keys:
            if not under(key, by):
                values = ", ".join(dict.fromkeys(str(group.differences.get(key, "not given")) for group in groups))
                split = f"if it names the split, say so with --split {key}; " if under(key, ["data.dataset"]) else ""
                yield (
                    f"{key} differs ({values}), so scores do not compare; {split}if it is what is compared, say so "
                    f"with --by {key.removesuffix('.name')}"
                )
    if by:
        keys = dict.fromkeys(key for group in groups for key in group.differences)
        others = [key for key in keys if not under(key, [*by, *PROTECTED])]
        if others:
            yield (
                f"groups differ not only in {', '.join(by)} but also in {_some(others)}; name these with --by too, or "
                f"compare runs that share them"
            )


def _scores(groups: Sequence[Group], protocol: str, metric: str | None) -> Iterator[str]:
    records = {str(run.path): run.protocols[protocol] for group in groups for run in group.runs}
    main = {path: main_metric(record) for path, record in records.items()}
    if metric is None and len(set(main.values())) > 1:
        names = ", ".join(f"{value} in {path}" for path, value in _first_of_each(main).items())
        yield f"the runs have different main scores ({names}); name one that all have with --metric"
        return
    for path, record in records.items():
        known, wanted = list(record["rows"][0]["metrics"]), metric or main[path]
        if wanted not in known or wanted not in record["directions"]:
            yield f"{path}: {protocol} has no score '{wanted}'{did_you_mean(wanted, known)} (it has {', '.join(known)})"
    ways = {path: record["directions"].get(metric or main[path]) for path, record in records.items()}
    if len(set(ways.values()) - {None}) > 1:
        names = ", ".join(f"'{value}' in {path}" for path, value in _first_of_each(ways).items())
        yield f"the direction of the score differs: {names}; evaluate the runs with one version"


def _records(groups: Sequence[Group], protocol: str, by: Sequence[str]) -> Iterator[str]:
    for group in groups:
        on_test = [run for run in group.runs if run.protocols[protocol]["selection"]["part"] != "validation"]
        if on_test:
            part = on_test[0].protocols[protocol]["selection"]["part"]
            yield (
                f"{group.label}: weights were selected on part '{part}' ({_some([str(run.path) for run in on_test])}); "
                f"scores on test mean something only where validation selected"
            )
    lifted = any(under(name, ["data"]) for name in by)
    checks: dict[str, Callable[[Record], Mapping[str, Any]]] = {
        "settings of the protocol": settings,
        "rows": lambda record: {"counts": [(row.get("samples"), row.get("excluded")) for row in record["rows"]]},
    }
    if not lifted:
        checks["facts of the data"] = lambda record: {"dataset": record["dataset"], **record["data"]}
    for what, look in checks.items():
        yield from _unlike(groups, protocol, what, look)


def settings(record: Record) -> dict[str, Any]:
    """How a protocol was run, the masks by their digest."""
    masks = {f"masks.{key}": value for key, value in record.get("masks", {}).items() if key not in ("file", "drawn")}
    return {**{key: record[key] for key in SETTINGS if key in record}, **masks}


def _unlike(
    groups: Sequence[Group], protocol: str, what: str, look: Callable[[Record], Mapping[str, Any]]
) -> Iterator[str]:
    """Differences between runs of one seed and split, a sentence for each key and group."""
    first, words = groups[0], replicate_texts(groups[0].runs)
    for group in groups[1:]:
        found: dict[str, list[str]] = {}
        for run, other in zip(group.runs, first.runs, strict=True):
            own, theirs = look(run.protocols[protocol]), look(other.protocols[protocol])
            for key in {**theirs, **own}:
                if own.get(key) != theirs.get(key):
                    values = "" if what == "rows" else f": {_short(theirs.get(key))} and {_short(own.get(key))}"
                    found.setdefault(key, []).append(f"{words[run.which]}{values}")
        for key, where in found.items():
            yield _unlike_text(what, key, first.label, group.label, where)


def _unlike_text(what: str, key: str, first: str, other: str, where: Sequence[str]) -> str:
    if what == "rows":
        return f"{first} and {other} are scored on different numbers of samples, at {_some(where)}"
    if key == "masks.sha256":
        return (
            f"{first} and {other} are measured under different masks, at {_some(where)}; evaluate with the same masks"
        )
    return f"{first} and {other}: {what} differ in '{key}', at {_some(where)}"


def _points(groups: Sequence[Group], protocol: str, layout: Layout) -> Iterator[str]:
    """Combinations, rates, corruptions: what was measured must be the same everywhere."""
    runs = [run for group in groups for run in group.runs]
    names = [point_names(run.protocols[protocol], layout) for run in runs]
    for run, own in zip(runs[1:], names[1:], strict=True):
        extra, lacking = own - names[0], names[0] - own
        if extra or lacking:
            told = [f"has {_some(sorted(extra))}"] if extra else []
            told += [f"lacks {_some(sorted(lacking))}"] if lacking else []
            yield f"{run.path} {' and '.join(told)} in {protocol}, other than {runs[0].path}; evaluate both alike"


def _first_of_each(values: Mapping[str, Any]) -> dict[str, Any]:
    """One path for each value."""
    return {
        next(path for path, own in values.items() if own == value): value for value in dict.fromkeys(values.values())
    }


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
