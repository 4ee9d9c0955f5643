"""NYU Depth V2 in both of its forms: the published MATLAB files, and the tree of PNG files made from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from robustmm import DataError, Track

from ._cells import Unreadable
from ._files import Array
from ._images import Item, read_colour, read_depth, read_label_map
from ._matlab import Slot, load_matlab, read_texts, shape_of
from ._published import Source, Targets, number_groups, read_lines
from ._written_once import write_array, write_lines

MAT, SPLITS, MAPPING_40, MAPPING_13 = (
    "nyu_depth_v2_labeled.mat",
    "splits.mat",
    "classMapping40.mat",
    "class13Mapping.mat",
)
#: Part -> variable of ``splits.mat``.
PARTS = {"train": "trainNdxs", "test": "testNdxs"}
#: List of the prepared tree, one line per picture: its number, and the scene in which it was taken.
SCENES = "scenes.txt"
#: Labels of the published file, beside 0 for unlabelled.
LABELS = 894
Depth = Literal["refined", "raw"]
Classes = Literal[40, 13]
#: Depth -> array of the MATLAB file, and folder of the prepared tree.
DEPTH_PLACES: dict[Depth, tuple[str, str]] = {"refined": ("depths", "depth"), "raw": ("rawDepths", "depth_raw")}


def read_splits(path: Path, count: int) -> dict[str, list[int]]:
    """Numbers of the pictures of each part, counted from 1.

    Raises:
        DataError: a number is none of 1 to ``count``, or stands in both parts.
    """
    arrays = dict(zip(PARTS, load_matlab(path, *PARTS.values()), strict=True))
    numbers = {part: [int(number) for number in np.atleast_1d(array)] for part, array in arrays.items()}
    everything = [number for part in numbers.values() for number in part]
    wrong = [number for number in everything if not 1 <= number <= count]
    if wrong:
        raise DataError(f"{path}: picture {wrong[0]} is none of the {count} of {MAT}; they count from 1")
    if len(set(everything)) != len(everything):
        raise DataError(f"{path}: a picture stands twice, in one part or in both")
    return numbers


def label_table(folder: Path, classes: Classes) -> Array:
    """Published label -> label with 0 for void and classes from 1, (895,) uint8.

    Raises:
        DataError: a mapping is absent, damaged or of another size.
    """
    (to_40,) = load_matlab(folder / MAPPING_40, "mapClass")
    table = _with_void(to_40, LABELS, 40, folder / MAPPING_40)
    if classes == 40:
        return table
    (mapping,) = load_matlab(folder / MAPPING_13, "classMapping13")
    labels = getattr(mapping, "labels13", np.zeros(0))
    to_13: Array = _with_void(labels, 40, 13, folder / MAPPING_13)[table]
    return to_13


def _with_void(mapping: Array, length: int, highest: int, path: Path) -> Array:
    flat = np.atleast_1d(mapping).astype(np.int64)
    if flat.shape != (length,) or flat.min() < 1 or flat.max() > highest:
        raise DataError(f"{path}: expected {length} labels of 1 to {highest}, got shape {flat.shape}")
    return np.concatenate([[0], flat]).astype(np.uint8)


def read_slot_colour(slot: Slot) -> Array:
    """A picture of the MATLAB file, (3, W, H) there, as (H, W, 3) uint8."""
    return np.ascontiguousarray(slot.read().transpose(2, 1, 0))


def read_slot_depth(slot: Slot) -> Array:
    """A depth map of the MATLAB file, (W, H) in metres there, as (H, W) uint16 in mm, truncated."""
    return (np.ascontiguousarray(slot.read().T) * np.float32(1e3)).astype(np.uint16)


@dataclass(frozen=True)
class SlotLabels:
    """Reads label maps of the MATLAB file, (W, H) uint16 there, as (H, W) uint8 with 0 for void.

    Args:
        table: Of `label_table`.
    """

    table: tuple[int, ...]

    def __call__(self, slot: Slot) -> Array:
        """(H, W) uint8.

        Raises:
            Unreadable: the file is damaged, or holds a label that is not in the table.
        """
        labels = np.ascontiguousarray(slot.read().T)
        if labels.dtype.kind != "u" or labels.max(initial=0) >= len(self.table):
            raise Unreadable(f"holds label {labels.max()}; expected 0 to {len(self.table) - 1}")
        mapped: Array = np.array(self.table, np.uint8)[labels]
        return mapped


def official_source(folder: Path, classes: Classes, depth: Depth) -> Source:
    """Parts that are read from the MATLAB files, picture by picture.

    Raises:
        DataError: a file is damaged, or they do not fit together.
    """
    path = folder / MAT
    numbers, scenes = read_numbers(folder)
    groups = dict(zip(scenes, number_groups(list(scenes.values())), strict=True))

    def item(number: int) -> Item:
        rgb, depth_map, label = (Slot(path, key, number - 1) for key in ("images", DEPTH_PLACES[depth][0], "labels"))
        return Item(name_of(number), {"rgb": rgb, "depth": depth_map}, label, groups[number])

    train, test = (tuple(item(number) for number in numbers[part]) for part in PARTS)
    read_label = Targets(SlotLabels(tuple(label_table(folder, classes).tolist())))
    return Source(train, test, {"rgb": read_slot_colour, "depth": read_slot_depth}, read_label, "scene")


def read_numbers(folder: Path) -> tuple[dict[str, list[int]], dict[int, str]]:
    """Numbers of each part, and the scene of every picture by its number.

    Raises:
        DataError: a file is damaged, or they do not fit together.
    """
    path = folder / MAT
    shape = shape_of(path, "images")
    if len(shape) != 4 or shape[1] != 3:
        raise DataError(f"{path}: 'images' has shape {shape}, expected (N, 3, W, H), as h5py shows MATLAB's axes")
    scenes = read_texts(path, "scenes")
    if len(scenes) != shape[0]:
        raise DataError(f"{path}: {shape[0]} pictures and {len(scenes)} scenes")
    return read_splits(folder / SPLITS, shape[0]), dict(enumerate(scenes, start=1))


def name_of(number: int) -> str:
    """Four digits, as the prepared tree names its files."""
    return f"{number:04d}"


def prepared_source(folder: Path, classes: Classes, depth: Depth) -> Source:
    """Parts that are read from the prepared tree.

    Raises:
        DataError: a list is absent or empty.
    """
    scenes = _scenes(folder / SCENES)
    numbers = number_groups(list(scenes.values()))
    groups = dict(zip(scenes, numbers, strict=True))

    def item(part: str, name: str) -> Item:
        rgb, depth_map, label = (
            folder / part / kind / f"{name}.png" for kind in ("rgb", DEPTH_PLACES[depth][1], f"labels_{classes}")
        )
        return Item(name, {"rgb": rgb, "depth": depth_map}, label, groups.get(name, 0))

    train, test = (tuple(item(part, name) for name in read_lines(folder / f"{part}.txt")) for part in PARTS)
    grouped = all(item.id in groups for item in train)
    return Source(
        train, test, {"rgb": read_colour, "depth": read_depth}, Targets(read_label_map), "scene" if grouped else ""
    )


def _scenes(path: Path) -> dict[str, str]:
    """Scene of each picture; empty where the tree was written by other code, which keeps no list of them."""
    if not path.is_file():
        return {}
    pairs = [line.partition(" ") for line in read_lines(path)]
    return {name: scene for name, _, scene in pairs}


def write_tree(source: Path, target: Path, track: Track) -> list[str]:
    """The prepared tree from the MATLAB files.

    Returns:
        Folders of each part that were written.
    """
    numbers, scenes = read_numbers(source)
    tables: dict[str, SlotLabels] = {"labels_40": SlotLabels(tuple(label_table(source, 40).tolist()))}
    if (source / MAPPING_13).is_file():
        tables["labels_13"] = SlotLabels(tuple(label_table(source, 13).tolist()))
    for part, chosen in numbers.items():
        for number in track(f"writing {part}", chosen):
            _write_picture(source / MAT, number, target / part, tables)
        write_lines(target / f"{part}.txt", [name_of(number) for number in chosen])
    write_lines(target / SCENES, [f"{name_of(number)} {scene}" for number, scene in scenes.items()])
    return ["rgb", *(folder for _, folder in DEPTH_PLACES.values()), *tables]


def _write_picture(mat: Path, number: int, folder: Path, tables: dict[str, SlotLabels]) -> None:
    file, slot = f"{name_of(number)}.png", partial(Slot, mat, index=number - 1)
    try:
        write_array(folder / "rgb" / file, partial(read_slot_colour, slot(key="images")))
        for key, place in DEPTH_PLACES.values():
            write_array(folder / place / file, partial(read_slot_depth, slot(key=key)))
        for place, read in tables.items():
            write_array(folder / place / file, partial(read, slot(key="labels")))
    except Unreadable as error:
        raise DataError(f"{mat}: picture {number}: {error}") from None
