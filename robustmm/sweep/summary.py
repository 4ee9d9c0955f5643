"""What became of every member of a sweep, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustmm.engine.run_folder import RunFolder
from robustmm.errors import CheckpointError
from robustmm.report.markup import PlainTable
from robustmm.report.measures import COMBINATION_QUANTITIES, mean_or_none
from robustmm.report.results import COMBINATIONS, read_results
from robustmm.report.tables import number
from robustmm.sweep.plan import Member, Plan

Scores = Mapping[str, float | None]


def member_table(plan: Plan, folder: Path) -> PlainTable:
    """A row per member, group by group, with a group's mean below where it has several members that are done."""
    rows: list[tuple[str, ...]] = []
    rules: set[int] = set()
    for group, members in plan.groups().items():
        rules.add(len(rows))
        found = [(member, *_state(folder / member.name)) for member in members]
        rows += [(group, str(member.seed), state, *_cells(scores)) for member, state, scores in found]
        done = [scores for _, _, scores in found if scores]
        if len(done) > 1:
            means = {name: mean_or_none([own[name] for own in done]) for name in COMBINATION_QUANTITIES}
            rows.append((group, f"mean of {len(done)}", "", *_cells(means)))
    metric = _metric(plan.members, folder)
    title = f"{folder}{f', {metric} on test' if metric else ''}"
    return PlainTable(
        title, ("group", "seed", "state", *COMBINATION_QUANTITIES), tuple(rows), rules=frozenset(rules - {0})
    )


def _cells(scores: Scores) -> tuple[str, ...]:
    return tuple(number(scores.get(name)) for name in COMBINATION_QUANTITIES)


def _state(path: Path) -> tuple[str, Scores]:
    """How a run ended, and its scores."""
    record = _record(path)
    if record is None:
        failed = (path / "FAILED").is_file()
        return "failed" if failed else "unfinished" if RunFolder(path).config.is_file() else "not begun", {}
    return "done", {name: record["aggregates"][name][record["score"]] for name in COMBINATION_QUANTITIES}


def _record(path: Path) -> Mapping[str, Any] | None:
    if not RunFolder(path).done:
        return None
    try:
        found: Mapping[str, Any] | None = read_results(path / "results.json")["protocols"].get(COMBINATIONS)
    except CheckpointError:  # whoever compares is told; the table of states goes on
        return None
    return found


def _metric(members: tuple[Member, ...], folder: Path) -> str:
    records = (_record(folder / member.name) for member in members)
    return next((str(record["score"]) for record in records if record is not None), "")
