"""What a reader must know before a number of a run is quoted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from robustmm.report.results import COMBINATIONS
from robustmm.report.run_files import Record, RunFiles
from robustmm.report.summaries import Remark, modalities_of

#: Names in one remark; a longer list says how many more there are.
NAMES_SHOWN = 8
#: With fewer test samples each of them moves a share by half a percent or more.
FEW_SAMPLES = 200
#: With fewer masks or draws a deviation says little.
FEW_DRAWS = 3


def remarks(run: RunFiles) -> list[Remark]:
    """All remarks, warnings first."""
    found = [*_selection(run), *_degenerate(run), *_stale(run), *_warnings(run.record, _status(run)), *_notes(run)]
    return sorted(found, key=lambda remark: remark.kind == "note")


def _status(run: RunFiles) -> str | None:
    """How training ended, where that is known."""
    return next((line["status"] for line in reversed(run.lines) if line["kind"] == "end"), None)


def _selection(run: RunFiles) -> Iterable[Remark]:
    selection = run.record["selection"]
    if selection["part"] == run.record["split"]:
        yield Remark(
            "warning",
            f"The weights were selected on the {selection['part']} part, on which they are scored here: every number "
            f"is too good. Select on a part of its own.",
        )


def _degenerate(run: RunFiles) -> Iterable[Remark]:
    names = run.record["degenerate"]
    if names:
        yield Remark(
            "warning",
            f"{_counted(len(names), 'degenerate combination')}: {_listed(names)}. The "
            f"model gives one answer for everything there, or its outputs are not finite. The table shows the "
            f"measured value; mean and worst count no more than chance.",
        )
    for protocol, record in run.protocols.items():
        rows = [row for row in record["rows"] if row.get("degenerate")]
        if rows and not protocol.startswith(COMBINATIONS):
            yield Remark(
                "warning",
                f"{_counted(len(rows), 'degenerate row')} of {len(record['rows'])} in {protocol}: the model gives one "
                f"answer for everything there, or its outputs are not finite. Curves and means show what was measured.",
            )


def _stale(run: RunFiles) -> Iterable[Remark]:
    other = [name for name, record in run.protocols.items() if _differs(record, run.record)]
    if other:
        yield Remark(
            "warning",
            f"Measured with other weights, or on other data, than the combinations: {_listed(other)}. Run `robustmm "
            f"evaluate` again for these protocols.",
        )


def _differs(record: Record, other: Record) -> bool:
    """Whether weights or data are not the same; unknown where a record has no fingerprint of them."""
    known = {one["fingerprint"] for one in (record, other) if "fingerprint" in one}
    return len(known) > 1 or bool(record["selection"] != other["selection"])


def _warnings(record: Record, status: str | None) -> Iterable[Remark]:
    rows = record["rows"]
    excluded = [row for row in rows if row["excluded"]]
    if excluded:
        most = max(row["excluded"] for row in excluded)
        yield Remark(
            "warning",
            f"Samples are left out of {_counted(len(excluded), 'combination')}, up to {most} in one, because they "
            f"have none of its modalities. Such rows are scored on different samples; see the column 'excluded'.",
        )
    incomplete = [row for row in rows if row["incomplete"]]
    if incomplete:
        most = max(row["incomplete"] for row in incomplete)
        yield Remark(
            "warning",
            f"In {_counted(len(incomplete), 'combination')} some samples, up to {most} in one, lack a part of the "
            f"combination and were predicted from the rest; see the column 'incomplete'.",
        )
    if status is not None and status != "done":
        yield Remark("warning", f"Training ended as '{status}', before its planned end.")


def _notes(run: RunFiles) -> Iterable[Remark]:
    record = run.record
    yield Remark(
        "note",
        f"What 'missing' means here: missing policy '{record['missing_policy']}'. Compare only runs with the same one.",
    )
    yield from _notes_on_data(record)
    yield from _few_draws(run)
    yield from _reproducibility(run)


def _notes_on_data(record: Record) -> Iterable[Remark]:
    validation = str(record["data"].get("validation", ""))
    if validation.startswith("carved"):
        yield Remark("note", f"The data set has no validation part; it was {validation}.")
    total = 2 ** len(modalities_of(record["rows"])) - 1
    if len(record["rows"]) < total:
        yield Remark(
            "note",
            f"{len(record['rows'])} of the {total} combinations were evaluated; mean and worst are over these.",
        )
    samples = record["data"].get("test_samples")
    if isinstance(samples, int) and samples < FEW_SAMPLES:
        yield Remark(
            "note", f"The {record['split']} part has {_counted(samples, 'sample')}: small differences are chance."
        )


def _few_draws(run: RunFiles) -> Iterable[Remark]:
    for protocol, what in (("missing-rate", "mask"), ("noise", "draw")):
        points = run.protocols.get(protocol, {}).get("curves", [])
        fewest = min((point["draws"] for point in points), default=FEW_DRAWS)
        if fewest < FEW_DRAWS:
            yield Remark("note", f"{protocol} has only {_counted(fewest, what)} at a place; its deviation says little.")


def _reproducibility(run: RunFiles) -> Iterable[Remark]:
    train = _section(run.config, "train")
    if train.get("deterministic") is False:
        yield Remark("note", "train.deterministic is false: training again may give other numbers.")
    commit = (run.environment or {}).get("commit")
    if commit is not None and str(commit).endswith("-dirty"):
        yield Remark("note", f"The code had changes that are not in a commit ({commit}).")


def _section(config: str | None, name: str) -> Mapping[str, Any]:
    """A section of the resolved configuration; empty where it cannot be read."""
    try:
        whole = yaml.safe_load(config or "")
    except yaml.YAMLError:
        return {}
    section = whole.get(name) if isinstance(whole, Mapping) else None
    return section if isinstance(section, Mapping) else {}


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
