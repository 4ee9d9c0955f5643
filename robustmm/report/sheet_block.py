"""One sample of a picture sheet: inputs, label, and prediction over errors for each combination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robustmm.engine.shots import Shot
from robustmm.report.lettering import BODY, INK, LINE_HEIGHT, MUTED, SMALL, Canvas, shorten, width_of, wrap_text
from robustmm.report.palette import Bytes
from robustmm.report.pictures import (
    Ints,
    fitting_size,
    picture_score,
    resize,
    resize_labels,
    show_classes,
    show_errors,
    show_input,
)
from robustmm.report.sheet_plan import GAP, Layout, Plan, name_lines
from robustmm.types import VOID, Combination, Modality

#: Of a sample's heading with the room below it; room below a tile, between it and its words, and after them.
HEADING, BELOW, NEAR = 40, 12, 4
LINE = LINE_HEIGHT - 3
#: Lines under a tile.
MOST_LINES = 3
SWATCH, NAME_GAP = 16, 16


@dataclass(frozen=True)
class Tile:
    """A place of a block.

    Args:
        words: Lines below it, the first in ink.
        pixels: What stands there; None leaves the place to ``empty`` or ``key``.
        empty: Said in an empty place.
        key: Colour and words of each class, in place of a picture.
    """

    words: Sequence[str] = ()
    pixels: Bytes | None = None
    empty: str = ""
    key: Sequence[tuple[Bytes, str]] = ()


@dataclass(frozen=True)
class Block:
    """A sample as it was drawn.

    Args:
        image: As wide as the layout's block.
        scores: Combination -> the picture's own mean IoU; None where there is nothing to score.
        classes: That its label or a prediction has.
        void: Whether a pixel has no label, or no class was predicted for it.
        invalid: Whether an input has values that were not measured.
        mapped: Whether an input was given colours of a scale.
    """

    image: Image.Image
    scores: dict[Combination, float | None]
    classes: frozenset[int]
    void: bool
    invalid: bool
    mapped: bool


def draw_block(shot: Shot, plan: Plan, layout: Layout) -> Block:
    """Draw a sample."""
    whole = (int(shot.target.shape[0]), int(shot.target.shape[1]))
    box = (layout.tile_height(whole), layout.tile)
    target = resize_labels(shot.target, fitting_size(whole, box))
    scores = {
        combo: None if own is None else picture_score(own, shot.target, len(plan.classes))
        for combo, own in shot.predictions.items()
    }
    lead = [_input_tile(modality, shot, target.shape, layout) for modality in plan.modalities]
    lead.append(Tile(["label"], show_classes(target, plan.colours)))
    if len(lead) % 2:
        lead.append(Tile(key=class_shares(shot.target, plan)))
    columns = list(zip(lead[::2], lead[1::2], strict=True))
    columns += [_combination_tiles(combo, shot, target, scores[combo], plan, layout) for combo in plan.combinations]
    seen = _seen(shot)
    return Block(
        _draw(_heading(shot, plan, layout), columns, layout, box),
        scores,
        seen & set(range(len(plan.classes))) - {VOID},
        void=bool(seen & {VOID, -1}),
        invalid=any(_has_invalid(one, shot.inputs[one.name]) for one in plan.modalities if one.name in shot.inputs),
        mapped=any(len(value) != 3 for value in shot.inputs.values()),
    )


def _input_tile(modality: Modality, shot: Shot, size: tuple[int, ...], layout: Layout) -> Tile:
    value = shot.inputs.get(modality.name)
    name = shorten(modality.name, SMALL, layout.tile)
    if value is None:
        return Tile([name], empty="missing")
    shown = show_input(modality, value)
    notes = wrap_text(shown.note, SMALL, layout.tile)
    return Tile([name, *notes][:MOST_LINES], resize(shown.pixels, (size[0], size[1])))


def _has_invalid(modality: Modality, value: Tensor) -> bool:
    invalid = modality.scaling.invalid
    return not bool(value.isfinite().all()) or (invalid is not None and bool((value == invalid).any()))


def _seen(shot: Shot) -> frozenset[int]:
    """Values of the label and of all predictions."""
    maps = [shot.target, *(own for own in shot.predictions.values() if own is not None)]
    return frozenset(label for own in maps for label in torch.unique(own).tolist())


def _combination_tiles(
    combo: Combination, shot: Shot, target: Ints, score: float | None, plan: Plan, layout: Layout
) -> tuple[Tile, Tile]:
    words = name_lines(combo, [modality.name for modality in plan.modalities], layout.tile)
    own = shot.predictions[combo]
    if own is None:
        return Tile(words, empty="no input"), Tile()
    prediction = resize_labels(own, (target.shape[0], target.shape[1]))
    lacking = [name for name in combo if name not in shot.inputs]
    under = ["no label" if score is None else f"mIoU {score:.3f}"]
    under += [shorten(f"{', '.join(lacking)} missing", SMALL, layout.tile)] if lacking else []
    return Tile(words, show_classes(prediction, plan.colours)), Tile(under, show_errors(prediction, target))


def class_shares(target: Tensor, plan: Plan) -> list[tuple[Bytes, str]]:
    """Colour and words for each class of a label map, the largest first, then void."""
    labels, counts = torch.unique(target, return_counts=True)
    found = sorted(zip(counts.tolist(), labels.tolist(), strict=True), key=lambda pair: (pair[1] == VOID, -pair[0]))
    return [
        (_sample_of(label, plan), f"{_percent(count / target.numel())} {_name(label, plan)}") for count, label in found
    ]


def _sample_of(label: int, plan: Plan) -> Bytes:
    return show_classes(np.full((SWATCH, SWATCH), label), plan.colours)


def _name(label: int, plan: Plan) -> str:
    return "void" if label == VOID else plan.classes[label]


def _percent(share: float) -> str:
    return "< 1%" if share < 0.01 else f"{100 * share:.0f}%"


def _heading(shot: Shot, plan: Plan, layout: Layout) -> tuple[str, str]:
    """The sample's name, and what else there is room for."""
    name = shorten(shot.id, BODY, layout.block_width * 2 // 3)
    number = f"{plan.part} sample {shot.position + 1} of {plan.total}"
    size = " x ".join(str(length) for length in shot.target.shape)
    room = layout.block_width - width_of(name, BODY) - NAME_GAP
    fitting = [words for words in (f"{number}, label {size}", number) if width_of(words, SMALL) <= room]
    return name, fitting[0] if fitting else ""


def _draw(
    heading: tuple[str, str], columns: Sequence[tuple[Tile, Tile]], layout: Layout, box: tuple[int, int]
) -> Image.Image:
    rows = [columns[start : start + layout.columns] for start in range(0, len(columns), layout.columns)]
    lines = [[_most_lines(row, half) for half in (0, 1)] for row in rows]
    heights = [[box[0] + NEAR + LINE * count + BELOW for count in halves] for halves in lines]
    canvas = Canvas(layout.block_width, HEADING + sum(map(sum, heights)) + BELOW)
    canvas.rule(0, 0, layout.block_width)
    canvas.text(0, 9, heading[0], BODY, INK)
    canvas.text(width_of(heading[0], BODY) + NAME_GAP, 11, heading[1], SMALL, MUTED)
    top = HEADING
    for row, halves in zip(rows, heights, strict=True):
        for place, tiles in enumerate(row):
            for tile, y, height in zip(tiles, (top, top + halves[0]), halves, strict=True):
                _draw_tile(canvas, (place * (layout.tile + GAP), y), tile, box, height - BELOW)
        top += sum(halves)
    return canvas.image


def _most_lines(row: Sequence[tuple[Tile, Tile]], half: int) -> int:
    return max(len(tiles[half].words) for tiles in row)


def _draw_tile(canvas: Canvas, place: tuple[int, int], tile: Tile, box: tuple[int, int], height: int) -> None:
    x, y = place
    if tile.pixels is not None:
        canvas.picture(x, y, tile.pixels, box)
    elif tile.key:
        _draw_key(canvas, x, y, tile.key, (height, box[1]))
    elif tile.empty:
        canvas.dashed_box(x, y, box, tile.empty)
    for number, line in enumerate(tile.words):
        canvas.text(x, y + box[0] + NEAR + number * LINE, line, SMALL, MUTED if number else INK)


def _draw_key(canvas: Canvas, x: int, y: int, key: Sequence[tuple[Bytes, str]], box: tuple[int, int]) -> None:
    room = max(1, box[0] // LINE_HEIGHT)
    fits = key if len(key) <= room else key[: room - 1]
    for place, (colour, words) in enumerate(fits):
        top = y + place * LINE_HEIGHT
        canvas.swatch(x, top + 3, colour)
        canvas.text(x + SWATCH + 8, top, shorten(words, SMALL, box[1] - SWATCH - 8), SMALL, INK)
    if len(fits) < len(key):
        canvas.text(x, y + len(fits) * LINE_HEIGHT, f"and {len(key) - len(fits)} more", SMALL, MUTED)
