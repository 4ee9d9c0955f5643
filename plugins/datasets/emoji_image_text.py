"""Emoji as picture and words, to be sorted into nine Unicode groups; shipped with the package.

Words tell far more than pictures here, so a model that trains both together tends to neglect the pictures. A quarter of
the unseen names have no word of the training part: their vector is zero, although the modality is there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from robustmm import ArrayDataset, Component, DataSplits, Modality, Options, Reading, Scaling, hookimpl

from ._files import Notes, embedded, read_table
from ._text import TfIdf

NAME = "emoji_image_text"
SIDE = 32
CLASSES = (
    "Smileys & Emotion",
    "People & Body",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
    "Symbols",
    "Flags",
)


class EmojiOptions(Options):
    """Options of the data set.

    Args:
        text: The words to show: the name alone, or the name and the keywords.
        vocabulary_size: At most this many words, those in most training texts.
    """

    text: Literal["name", "name_keywords"] = Field("name", description="words to show; keywords make the task easier")
    vocabulary_size: int = Field(2048, ge=1, description="at most this many words, those in most training texts")


def read_pictures(paths: list[Path], count: int) -> Tensor:
    """The drawings on white, (count, 3, 32, 32) float32 in [0, 1], in the order of the table."""
    tiles = []
    for path in paths:
        with Image.open(path) as sheet:
            grid = torch.from_numpy(np.array(sheet.convert("RGB")))  # (rows * 32, 32 * 32, 3)
        tiles.append(grid.view(-1, SIDE, SIDE, SIDE, 3).permute(0, 2, 4, 1, 3).reshape(-1, 3, SIDE, SIDE))
    return torch.cat(tiles)[:count].float() / 255


def text_of(row: dict[str, str], text: Literal["name", "name_keywords"]) -> str:
    """The words of one row."""
    return row["name"] if text == "name" else f"{row['name']} {row['keywords']}"


def build_emoji_image_text(text: Literal["name", "name_keywords"], vocabulary_size: int) -> DataSplits:
    """1334 training, 190 validation and 382 test emoji; the vocabulary and its weights come from training alone."""
    rows = read_table(embedded(NAME) / "emoji.csv", ["split", "code", "group", "name", "keywords"])
    pictures = read_pictures(sorted(embedded(NAME).glob("pictures*.png")), len(rows))
    labels = torch.tensor([CLASSES.index(row["group"]) for row in rows])
    texts = [text_of(row, text) for row in rows]
    vectorise = TfIdf(
        [words for words, row in zip(texts, rows, strict=True) if row["split"] == "train"], vocabulary_size
    )
    vectors = vectorise(texts)
    parts = {}
    for part in ("train", "val", "test"):
        chosen = [number for number, row in enumerate(rows) if row["split"] == part]
        parts[part] = ArrayDataset(
            {"image": pictures[chosen], "text": vectors[chosen]},
            labels[chosen],
            [rows[number]["code"] for number in chosen],
        )
    notes: Notes = {
        "split": "the project's own, stratified by group; vocabulary from train",
        "text": text,
        "vocabulary": vectors.shape[1],
        **{name: len(part) for name, part in parts.items()},
        "licence": "Twemoji graphics CC BY 4.0; emoji-datasource and emojibase MIT; Unicode CLDR",
        "citation": "Twemoji by Twitter, Inc and others; emoji-datasource-twitter 16.0.0; emojibase-data 17.0.0",
    }
    return DataSplits(
        (
            Modality("image", "image", (3, SIDE, SIDE), unit="0-1", reading=Reading("share")),
            Modality("text", "vector", (vectors.shape[1],), Scaling("none")),
        ),
        "classification",
        CLASSES,
        parts["train"],
        parts["test"],
        parts["val"],
        train_labels=parts["train"].target,
        notes=notes,
    )


@hookimpl
def robustmm_register_datasets(register: Callable[[Component], None]) -> None:
    """Offer the emoji."""
    register(
        Component(
            NAME,
            build_emoji_image_text,
            EmojiOptions,
            "1906 emoji as picture and words, nine groups, strongly unbalanced modalities; shipped, no download.",
            "npm emoji-datasource-twitter (Twemoji, CC BY 4.0) and emojibase-data (MIT, Unicode CLDR)",
        )
    )
