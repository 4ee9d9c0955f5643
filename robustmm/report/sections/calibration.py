"""Whether confidence means what it says, combination by combination."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from robustmm.report.reliability import reliability_figure
from robustmm.report.run_files import Record, RunFiles
from robustmm.report.sections.section import Section
from robustmm.report.summaries import largest_of, members, worst_of
from robustmm.report.tables import FULL_TABLE


def calibration_sections(run: RunFiles) -> Iterator[Section]:
    """One where calibration was measured."""
    record = run.protocols.get("calibration")
    if record is None:
        return
    rows = record["rows"]
    main = _main(run, rows)
    others = [row for row in _others(rows) if row["combination"] not in main]
    columns = [name for name in rows[0]["metrics"] if any(row["metrics"][name] is not None for row in rows)]
    content = {
        "rows": rows,
        "columns": columns,
        "ways": record["directions"],
        "largest_ece": max((row["metrics"]["ece"] or 0.0 for row in rows), default=0.0) or 1.0,
        "figures": [
            reliability_figure(row["bins"], f"{label}: {row['combination']}") for row, label in _labelled(rows, main)
        ],
        "binned": [row for row, _ in _labelled(rows, main)],
        "small_figures": [reliability_figure(row["bins"], row["combination"], small=True) for row in others],
        "left_out": len(rows) - len(main) - len(others),
        "what": "pixels" if "colours" in run.record else "samples",
    }
    yield Section("calibration", "Calibration and uncertainty", "Calibration", "sections/calibration", content)


def _main(run: RunFiles, rows: Sequence[Record]) -> dict[str, str]:
    """The combinations whose diagrams are large, with what they are."""
    known = {row["combination"] for row in rows}
    main = {largest_of(rows): "complete"}
    worst = worst_of(run.record)
    if worst is not None and worst in known and worst not in main:
        main[worst] = "worst"
    return main


def _labelled(rows: Sequence[Record], main: dict[str, str]) -> list[tuple[Record, str]]:
    by_name = {row["combination"]: row for row in rows}
    return [(by_name[name], label) for name, label in main.items()]


def _others(rows: Sequence[Record]) -> list[Record]:
    """Those with a small diagram: all where they are few, else single modalities and the worst calibrated."""
    if len(rows) <= FULL_TABLE:
        return list(rows)
    single = [row for row in rows if len(members(row)) == 1]
    joint = [row for row in rows if len(members(row)) > 1]
    joint.sort(key=lambda row: row["metrics"]["ece"] or 0.0, reverse=True)
    return (single + joint)[:FULL_TABLE]
