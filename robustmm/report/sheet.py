"""The picture sheet of a dense run: heading with legend, then sample by sample."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from robustmm.engine.shots import Shot
from robustmm.masks import combination_name
from robustmm.report.lettering import (
    BODY,
    INK,
    LINE_HEIGHT,
    MUTED,
    PAPER,
    SMALL,
    TITLE,
    Canvas,
    shorten,
    width_of,
    wrap_text,
)
from robustmm.report.palette import INVALID, RIGHT, WRONG, Bytes, Colour, value_colours
from robustmm.report.pictures import BEYOND, stripes
from robustmm.report.sheet_block import Block, draw_block
from robustmm.report.sheet_plan import GAP, MARGIN, Layout, Plan, layout_for, left_out_words

#: Where the sheet lies in a run folder.
SHEET = Path("eval") / "pictures.png"
#: Key of the PNG's text that says what is drawn.
DESCRIPTION = "Description"
#: Key of the PNG's text with the places, in pixels from the top, where the sheet may be cut.
STRIPS = "Strips"
#: With more classes than this the legend has only those that are drawn.
MOST_CLASSES = 60
#: Size of a legend's colour, and most and least width of an entry.
SWATCH, WIDEST, NARROWEST = 20, 320, 120


def write_sheet(path: Path, plan: Plan, shots: Iterable[Shot], count: int) -> None:
    """Draw samples as they come, and write the sheet as PNG with its description.

    Args:
        path: Replaced at once.
        plan: What is drawn.
        shots: Samples.
        count: How many they are.
    """
    layout = layout_for(len(plan.modalities), len(plan.combinations), count)
    blocks = [draw_block(shot, plan, layout) for shot in shots]
    strips = [_heading(plan, layout, blocks), *_rows(blocks, layout)]
    image = _stack(strips, layout.width)
    information = PngInfo()
    information.add_itxt(DESCRIPTION, describe(plan, blocks))
    information.add_text(STRIPS, " ".join(map(str, accumulate(strip.height for strip in strips))))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    image.save(temporary, format="PNG", pnginfo=information)
    os.replace(temporary, path)


def describe(plan: Plan, blocks: Sequence[Block]) -> str:
    """What the sheet shows, for people who do not see it."""
    names = ", ".join(modality.name for modality in plan.modalities)
    said = []
    for combo in plan.combinations:
        known = [score for block in blocks if (score := block.scores[combo]) is not None]
        said.append(f"{combination_name(combo)} {sum(known) / len(known):.3f}" if known else combination_name(combo))
    return (
        f"{len(blocks)} of {plan.total} {plan.part} samples, evenly spaced: inputs ({names}), label, and for each "
        f"combination the predicted classes and a map of errors. Mean of these pictures' own mIoU: {', '.join(said)}."
    )


def _rows(blocks: Sequence[Block], layout: Layout) -> list[Image.Image]:
    rows = []
    for start in range(0, len(blocks), layout.abreast):
        images = [block.image for block in blocks[start : start + layout.abreast]]
        row = Image.new("RGB", (layout.width, max(image.height for image in images)), PAPER)
        for place, image in enumerate(images):
            row.paste(image, (MARGIN + place * (layout.block_width + 3 * GAP), 0))
        rows.append(row)
    return rows


def _stack(images: Sequence[Image.Image], width: int) -> Image.Image:
    whole = Image.new("RGB", (width, sum(image.height for image in images) + MARGIN // 2), PAPER)
    top = 0
    for image in images:
        whole.paste(image, (0, top))
        top += image.height
    return whole


def _heading(plan: Plan, layout: Layout, blocks: Sequence[Block]) -> Image.Image:
    inside = layout.width - 2 * MARGIN
    facts, notes = (wrap_text(text, size, inside) for text, size in ((plan.facts, BODY), (_notes(plan, blocks), SMALL)))
    marks, classes = _marks(plan, blocks), _classes(plan, blocks)
    entry = _entry_width(classes, inside)
    class_rows = -(-len(classes) // max(1, inside // entry))
    lines = len(facts) + len(notes) + class_rows + 1
    canvas = Canvas(layout.width, MARGIN + TITLE + 16 + lines * LINE_HEIGHT + class_rows * 4 + 44)
    canvas.text(MARGIN, MARGIN - 8, shorten(plan.title, TITLE, inside), TITLE)
    y = canvas.lines(MARGIN, MARGIN + TITLE + 10, facts, BODY, INK)
    y = canvas.lines(MARGIN, y + 4, notes, SMALL, MUTED) + 16
    x = MARGIN
    for colour, words in marks:
        canvas.swatch(x, y, colour)
        x = canvas.text(x + colour.shape[1] + 8, y - 1, words, SMALL, INK) + 32
    y += LINE_HEIGHT + 12
    per_row = max(1, inside // entry)
    for place, (colour, name) in enumerate(classes):
        left, top = MARGIN + place % per_row * entry, y + place // per_row * (LINE_HEIGHT + 4)
        canvas.swatch(left, top, colour)
        canvas.text(left + SWATCH + 8, top - 1, shorten(name, SMALL, entry - SWATCH - 24), SMALL, INK)
    return canvas.image


def _notes(plan: Plan, blocks: Sequence[Block]) -> str:
    shown = (
        f"{len(blocks)} of {plan.total} {plan.part} samples, evenly spaced. Under each error map stands the picture's "
        "own mIoU: the mean over the classes that its label has."
    )
    if len(plan.classes) > MOST_CLASSES:
        shown += f" Of {len(plan.classes)} classes, those that are drawn are named."
    return f"{shown} {left_out_words(plan)}".strip()


def _marks(plan: Plan, blocks: Sequence[Block]) -> list[tuple[Bytes, str]]:
    """What is no class: errors, void, and how values became colours."""
    marks = [(_flat(RIGHT), "right"), (_flat(WRONG), "wrong")]
    if any(block.void for block in blocks):
        marks.append((stripes((SWATCH, SWATCH)), "void: no label"))
    if any(block.mapped for block in blocks):
        bar = np.broadcast_to(value_colours(np.linspace(0, 1, 6 * SWATCH)), (SWATCH, 6 * SWATCH, 3)).copy()
        marks.append((bar, f"low to high values, from percentile {BEYOND:g} to {100 - BEYOND:g} of each picture"))
    if any(block.invalid for block in blocks):
        marks.append((_flat(INVALID), "not measured"))
    return marks


def _classes(plan: Plan, blocks: Sequence[Block]) -> list[tuple[Bytes, str]]:
    chosen = list(range(len(plan.classes)))
    if len(chosen) > MOST_CLASSES:
        chosen = sorted(set().union(*(block.classes for block in blocks)))
    return [(_flat(plan.colours[index]), plan.classes[index]) for index in chosen]


def _entry_width(classes: Sequence[tuple[Bytes, str]], inside: int) -> int:
    widest = max((width_of(name, SMALL) for _, name in classes), default=0) + SWATCH + 32
    return min(max(widest, NARROWEST), WIDEST, inside)


def _flat(colour: Colour | Bytes) -> Bytes:
    return np.full((SWATCH, SWATCH, 3), colour, dtype=np.uint8)
