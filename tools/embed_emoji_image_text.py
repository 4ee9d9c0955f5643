"""Write plugins/datasets/embedded/emoji_image_text from two npm packages.

Get them with ``npm pack emoji-datasource-twitter@16.0.0 emojibase-data@17.0.0`` and run
``python tools/embed_emoji_image_text.py emoji-datasource-twitter-16.0.0.tgz emojibase-data-17.0.0.tgz``.

Names, groups and pictures come from the first package, keywords and labels from the second. The split is the project's
own (stratified by group) and is read from the table that is already there, or from ``--splits``.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

OUT = Path(__file__).parents[1] / "plugins" / "datasets" / "embedded" / "emoji_image_text"
COLUMNS = ("split", "code", "group", "subgroup", "name", "keywords", "label")
SIDE = 32
#: Distance of the drawings in the package's sheet: 32 pixels and a border of one on each side.
PITCH = SIDE + 2
TILES_PER_ROW = 32


def read_member(archive: Path, name: str) -> bytes:
    """One file of an npm package."""
    with tarfile.open(archive) as package:
        file = package.extractfile(f"package/{name}")
        assert file is not None, f"{archive} holds no file {name}"
        return file.read()


def read_keywords(archive: Path) -> dict[str, dict[str, Any]]:
    """Entries of emojibase by hexadecimal code, skin tones included."""
    entries = {}
    for entry in json.loads(read_member(archive, "en/data.json")):
        for form in (entry, *entry.get("skins", [])):
            entries[form["hexcode"]] = form
    return entries


def make_rows(datasource: Path, emojibase: Path, splits: dict[str, str]) -> list[dict[str, Any]]:
    """One row per emoji, in the order of the package, with its place in the sheet; skin tones alone are left out."""
    words = read_keywords(emojibase)
    rows = []
    for emoji in json.loads(read_member(datasource, "emoji.json")):
        code = emoji["unified"]
        if emoji["category"] == "Component":
            continue
        entry = words.get(code) or words[code.replace("-FE0F", "")]
        rows.append(
            {
                "split": splits[code],
                "code": code,
                "group": emoji["category"],
                "subgroup": emoji["subcategory"],
                "name": emoji["name"].lower(),
                "keywords": " ".join(entry.get("tags", [])),
                "label": entry["label"],
                "corner": (emoji["sheet_y"] * PITCH + 1, emoji["sheet_x"] * PITCH + 1),
            }
        )
    return rows


def cut_pictures(datasource: Path, rows: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    """The drawings, blended on white, (N, 32, 32, 3) uint8."""
    sheet = Image.open(io.BytesIO(read_member(datasource, "img/twitter/sheets-clean/32.png"))).convert("RGBA")
    white = Image.new("RGBA", sheet.size, (255, 255, 255, 255))
    blended = np.asarray(Image.alpha_composite(white, sheet).convert("RGB"))
    return np.stack([blended[y : y + SIDE, x : x + SIDE] for y, x in (row["corner"] for row in rows)])


def save_sheet(pictures: np.ndarray[Any, Any], path: Path) -> None:
    """Pictures side by side, 32 a row, as a lossless PNG."""
    count = -len(pictures) % TILES_PER_ROW
    padded = np.concatenate([pictures, np.full((count, SIDE, SIDE, 3), 255, np.uint8)])
    grid = padded.reshape(-1, TILES_PER_ROW, SIDE, SIDE, 3).transpose(0, 2, 1, 3, 4)
    Image.fromarray(grid.reshape(-1, TILES_PER_ROW * SIDE, 3)).save(path, optimize=True)


def main() -> None:
    """Read both packages, check them against the split and write the table and two sheets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasource", type=Path, help="emoji-datasource-twitter-16.0.0.tgz")
    parser.add_argument("emojibase", type=Path, help="emojibase-data-17.0.0.tgz")
    parser.add_argument("--splits", type=Path, default=OUT / "emoji.csv", help="CSV with the columns code and split")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with arguments.splits.open(newline="", encoding="utf-8") as file:
        splits = {row["code"]: row["split"] for row in csv.DictReader(file)}
    rows = make_rows(arguments.datasource, arguments.emojibase, splits)
    if len(rows) != len(splits):
        raise SystemExit(f"the packages hold {len(rows)} emoji, the split names {len(splits)}")
    with (arguments.out / "emoji.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    pictures = cut_pictures(arguments.datasource, rows)
    half = TILES_PER_ROW * TILES_PER_ROW
    for number, start in enumerate(range(0, len(pictures), half)):
        save_sheet(pictures[start : start + half], arguments.out / f"pictures{number}.png")
    print(f"{len(rows)} emoji, pictures {pictures.shape}")


if __name__ == "__main__":
    main()
