"""Scores of each class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from robustmm.report.figure import Figure
from robustmm.report.pair_rows import PairRow, PairWords, pair_figure
from robustmm.report.run_files import RunFiles
from robustmm.report.sections.section import Section
from robustmm.report.summaries import ClassScores, class_scores, largest_of

#: More classes than this are drawn in the table alone.
MOST_DRAWN = 48
#: Columns of a table that stands beside the figure, and letters of their names.
NARROW_COLUMNS, NARROW_NAME = 4, 14


def class_sections(run: RunFiles) -> Iterator[Section]:
    """One where scores by class are known, or can be counted from confusions."""
    scores = class_scores(run.record) or scores_of_confusions(run.record)
    if scores is None:
        return
    content = {
        "class_scores": scores,
        "swatches": _swatches(run.record),
        "narrow": _narrow(scores),
        "figure": class_figure(scores, run.record["classes"]),
        "counted": class_scores(run.record) is None,
    }
    yield Section("classes", "Class by class", "Classes", "sections/classes", content)


def _narrow(scores: ClassScores) -> bool:
    """Whether the table fits beside the figure."""
    columns = len(scores.rows[0]) * len(scores.columns)
    return columns <= NARROW_COLUMNS and max(map(len, scores.columns)) <= NARROW_NAME


def _swatches(record: Mapping[str, Any]) -> list[str]:
    """Each class's colour as the style sheet wants it; empty where classes have none."""
    return ["#{:02x}{:02x}{:02x}".format(*colour) for colour in record.get("colours", ())]


def scores_of_confusions(record: Mapping[str, Any]) -> ClassScores | None:
    """Recall and precision of each class, of the combinations whose confusions are kept; None without any."""
    confusions: Mapping[str, Sequence[Sequence[int]]] | None = record.get("confusions")
    if not confusions:
        return None
    complete = largest_of(record["rows"])
    columns = tuple("complete" if name == complete else f"worst ({name})" for name in confusions)
    rows = [
        {
            "recall": tuple(_share(counts[place][place], sum(counts[place])) for counts in confusions.values()),
            "precision": tuple(
                _share(counts[place][place], sum(row[place] for row in counts)) for counts in confusions.values()
            ),
        }
        for place in range(len(record["classes"]))
    ]
    return ClassScores(columns, tuple(rows))


def _share(count: int, total: int) -> float | None:
    return count / total if total else None


def class_figure(scores: ClassScores, classes: Sequence[str]) -> Figure | None:
    """The first score of each class, of the worst combination and of the complete one; None without both."""
    if len(scores.columns) < 2 or not scores.columns[1].startswith("worst") or len(classes) > MOST_DRAWN:
        return None
    name = next(iter(scores.rows[0]))
    pairs = [PairRow(label, row[name][1], row[name][0]) for label, row in zip(classes, scores.rows, strict=True)]
    if not any(pair.first is not None or pair.second is not None for pair in pairs):
        return None
    words = PairWords(
        title=f"{name} of each class, {scores.columns[1]} and complete",
        text=f"{name} of each class, of the worst combination and of the complete one",
        x_label=name,
        first=scores.columns[1],
        second="complete",
    )
    return pair_figure(pairs, words)
