"""Which class is taken for which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from robustmm.report.heat import tint
from robustmm.report.run_files import RunFiles
from robustmm.report.sections.section import Section
from robustmm.report.summaries import largest_of

#: With more classes than this the largest confusions are listed instead of all cells.
MOST_CLASSES = 32
#: Confusions in such a list.
LISTED = 25
#: What stands above the last column: outputs that were not finite.
NO_CLASS = "no class"
Counts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Cell:
    """True class against predicted class.

    Args:
        count: Predictions.
        share: Of the true class's; None where nothing has that class.
        tint: Strength of the cell's colour in percent.
        right: Whether it is the diagonal.
    """

    count: int
    share: float | None
    tint: float
    right: bool


@dataclass(frozen=True)
class Mistake:
    """One class taken for another.

    Args:
        true: What it is.
        predicted: What the model says.
        count: Predictions.
        share: Of the true class's.
    """

    true: str
    predicted: str
    count: int
    share: float


def confusion_sections(run: RunFiles) -> Iterator[Section]:
    """One where confusions were counted."""
    confusions: dict[str, Counts] | None = run.record.get("confusions")
    if not confusions:
        return
    classes = list(run.record["classes"])
    complete = largest_of(run.record["rows"])
    content = {
        "matrices": [_matrix(name, counts, classes, complete) for name, counts in confusions.items()],
        "classes": classes,
        "many": len(classes) > MOST_CLASSES,
        "what": "pixels" if "colours" in run.record else "samples",
    }
    yield Section("confusion", "What is taken for what", "Confusion", "sections/confusion", content)


def _matrix(name: str, counts: Counts, classes: Sequence[str], complete: str) -> dict[str, Any]:
    width = len(classes) + any(row[-1] for row in counts)
    return {
        "combination": name,
        "label": "complete" if name == complete else "worst",
        "heads": [*classes, NO_CLASS][:width],
        "rows": [[_cell(row, place, column) for column in range(width)] for place, row in enumerate(counts)],
        "mistakes": _mistakes(counts, classes),
    }


def _cell(row: Sequence[int], place: int, column: int) -> Cell:
    total = sum(row)
    share = row[column] / total if total else None
    return Cell(row[column], share, tint(share or 0.0, 1.0), place == column)


def _mistakes(counts: Counts, classes: Sequence[str]) -> list[Mistake]:
    """The largest counts beside the diagonal."""
    names = [*classes, NO_CLASS]
    found = [
        Mistake(classes[place], names[column], count, count / sum(row))
        for place, row in enumerate(counts)
        for column, count in enumerate(row)
        if count and place != column
    ]
    return sorted(found, key=lambda one: -one.count)[:LISTED]
