"""What a picture sheet shows, and where: which combinations, how many columns, how large the tiles are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robustmm.masks import combination_name, parse_combination
from robustmm.report.lettering import ELLIPSIS, SMALL, shorten, wrap
from robustmm.report.palette import Bytes
from robustmm.report.summaries import counted_rows, members
from robustmm.report.tables import number
from robustmm.types import Combination, Modality

#: With more combinations than this, the complete one, the single ones and the worst are drawn.
MOST_COMBINATIONS = 16
#: Names of combinations that were left out; a longer list says how many more there are.
NAMES_SHOWN = 12
#: Width of the sheet with few columns and with many, its edge, and the gaps between columns, in pixels.
WIDTH, WIDE, MARGIN, GAP = 1600, 1800, 40, 14
#: Columns in a row; more are wrapped.
MOST_COLUMNS = 9
#: Above this many columns the sheet is wide.
WIDE_ABOVE = 7
#: Columns that samples side by side may fill together.
SHARED_COLUMNS = 6
LARGEST_TILE = 400
#: Height of a tile over its width: flatter or taller pictures stand in the middle of such a tile.
FLATTEST, TALLEST = 0.25, 1.35


@dataclass(frozen=True)
class Plan:
    """What is drawn.

    Args:
        title: Of the sheet.
        facts: What was run, a line.
        part: ``test``.
        total: Samples of the part.
        modalities: Columns of the run.
        classes: Names.
        colours: (C, 3).
        combinations: Drawn, in order.
        left_out: Evaluated, but not drawn.
    """

    title: str
    facts: str
    part: str
    total: int
    modalities: tuple[Modality, ...]
    classes: tuple[str, ...]
    colours: Bytes
    combinations: tuple[Combination, ...]
    left_out: tuple[Combination, ...] = ()


@dataclass(frozen=True)
class Layout:
    """Where things stand, in pixels.

    Args:
        width: Of the sheet.
        lead: Columns that inputs and label take at the beginning of a sample.
        columns: In a row of a sample.
        rows: Of columns in a sample.
        abreast: Samples side by side.
        tile: Width of a tile.
    """

    width: int
    lead: int
    columns: int
    rows: int
    abreast: int
    tile: int

    @property
    def block_width(self) -> int:
        """Of one sample."""
        return self.columns * (self.tile + GAP) - GAP

    def tile_height(self, size: tuple[int, int]) -> int:
        """Of the tiles of a sample whose label is (height, width)."""
        return round(self.tile * min(max(size[0] / size[1], FLATTEST), TALLEST))


def layout_for(modalities: int, combinations: int, samples: int) -> Layout:
    """Columns of two tiles each: inputs and label first, then prediction over errors for each combination."""
    lead = math.ceil((modalities + 1) / 2)
    count = lead + combinations
    rows = math.ceil(count / MOST_COLUMNS)
    columns = math.ceil(count / rows)
    abreast = min(max(1, SHARED_COLUMNS // columns), max(1, samples))
    width = WIDE if columns > WIDE_ABOVE else WIDTH
    # samples side by side stand as far apart again as columns do
    room = width - 2 * MARGIN - (columns * abreast - 1) * GAP - (abreast - 1) * 2 * GAP
    return Layout(width, lead, columns, rows, abreast, min(LARGEST_TILE, room // (columns * abreast)))


def plan_of(record: Mapping[str, Any], modalities: Sequence[Modality], *, total: int) -> Plan:
    """What the sheet of a run shows.

    Args:
        record: Of `robustmm.report.results.protocol_record`, with ``colours``.
        modalities: Columns of the run.
        total: Samples of the part.
    """
    selection, names = record["selection"], [modality.name for modality in modalities]
    drawn, left_out = choose_combinations(record)
    score = f"{selection['metric']} {number(selection['value'])}"
    facts = (
        f"method {record['method']}",
        f"balancer {record['balancer']}",
        f"data set {record['dataset']}",
        f"{record['split']} part",
        f"missing policy {record['missing_policy']}",
        f"seed {record['seed']}",
        f"weights of epoch {selection['epoch']} ({selection['part']} {score})",
    )
    return Plan(
        title=record["run"] or "run",
        facts=" · ".join(facts),
        part=record["split"],
        total=total,
        modalities=tuple(modalities),
        classes=tuple(record["classes"]),
        colours=np.array(record["colours"], dtype=np.uint8).reshape(-1, 3),
        combinations=tuple(parse_combination(name, names) for name in drawn),
        left_out=tuple(parse_combination(name, names) for name in left_out),
    )


def choose_combinations(record: Mapping[str, Any], most: int = MOST_COMBINATIONS) -> tuple[list[str], list[str]]:
    """Names of the combinations to draw, and of those to leave out, both in the record's order.

    Args:
        record: Of `robustmm.report.results.protocol_record`.
        most: If there are more, drawn are the complete one, the single ones and, up to this number, the worst.
    """
    rows = counted_rows(record)
    names = [row["combination"] for row in rows]
    if len(names) <= most:
        return names, []
    score = record["score"]
    sign = 1 if record["directions"][score] == "max" else -1
    largest = max(len(members(row)) for row in rows)

    def rank(row: Mapping[str, Any]) -> tuple[int, float]:
        size, value = len(members(row)), row["metrics"][score]
        group = 0 if size == largest else 1 if size == 1 else 2
        return group, -math.inf if value is None else sign * value

    drawn = {row["combination"] for row in sorted(rows, key=rank)[:most]}
    return [name for name in names if name in drawn], [name for name in names if name not in drawn]


def left_out_words(plan: Plan) -> str:
    """Which combinations were evaluated but not drawn; empty where all are drawn."""
    if not plan.left_out:
        return ""
    names = [combination_name(combo) for combo in plan.left_out]
    more = len(names) - NAMES_SHOWN
    listed = ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
    drawn, total = len(plan.combinations), len(plan.combinations) + len(names)
    return (
        f"{drawn} of {total} combinations are drawn: the complete one, the single ones and those with the worst "
        f"scores. Left out: {listed}."
    )


def name_lines(combination: Combination, modalities: Sequence[str], width: int) -> list[str]:
    """What a prediction was made from, in at most two lines; where the names are too long, what it lacks."""
    lacking = [name for name in modalities if name not in combination]
    every = ["from ", "all ", f"{len(modalities)} ", "modalities"] if not lacking else ["from ", "all ", "but "]
    for words in ["from ", *_joined(combination, "+")], [*every, *_joined(lacking, ", ")]:
        lines = wrap(words, SMALL, width)
        if len(lines) <= 2 and not any(ELLIPSIS in line for line in lines):
            return lines
    lines = wrap(["from ", *_joined(combination, "+")], SMALL, width)
    return [lines[0], shorten("".join(lines[1:]), SMALL, width)]


def _joined(names: Sequence[str], between: str) -> list[str]:
    """Words of a list, each but the last followed by what joins them."""
    return [name if place == len(names) - 1 else f"{name}{between}" for place, name in enumerate(names)]
