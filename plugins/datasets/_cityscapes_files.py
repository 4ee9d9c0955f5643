"""Cityscapes in both of its forms: as it is published, and the tree that ESANet's code prepares from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robustmm import DataError, Track

from ._cells import Unreadable
from ._files import Array
from ._images import Item, Reader, read_colour, read_depth, read_label_map, read_npy
from ._published import Source, Targets, number_groups, read_lines
from ._rgbd_classes import CITYSCAPES
from ._written_once import place_copy, write_array, write_lines

#: Kind of file -> folder and end of name, as published.
OFFICIAL = {
    "rgb": ("leftImg8bit", "_leftImg8bit.png"),
    "label": ("gtFine", "_gtFine_labelIds.png"),
    "disparity": ("disparity", "_disparity.png"),
    "camera": ("camera", "_camera.json"),
}
#: Part -> split as published, and in the prepared tree. The labels of ``test`` are withheld.
SPLITS = {"train": ("train", "train"), "test": ("val", "valid")}
#: Metres beyond this are disparities of next to nothing: not measured, as in ESANet.
FAR_M = 300.0
#: Labels of the published files, without the licence plate, which has none.
LABELS = 34
Depth = Literal["metres", "disparity"]
#: Depth -> folder of the prepared tree.
DEPTH_FOLDERS: dict[Depth, str] = {"metres": "depth_raw", "disparity": "disparity_raw"}


def label_table() -> Array:
    """Published label -> 0 for void, otherwise the class's place among the 19 plus 1, (34,) uint8."""
    table = np.zeros(LABELS, np.uint8)
    table[[label for label, _ in CITYSCAPES.values()]] = np.arange(1, len(CITYSCAPES) + 1)
    return table


def read_label_ids(path: Path) -> Array:
    """A file ``*_labelIds.png`` as (H, W) uint8 with 0 for void and 1 to 19.

    Raises:
        Unreadable: the file is damaged, or holds a label that is not published.
    """
    labels = read_label_map(path)
    if labels.dtype != np.uint8 or labels.max(initial=0) >= LABELS:
        raise Unreadable(f"holds label {labels.max()}; labelIds are 0 to {LABELS - 1}")
    mapped: Array = label_table()[labels]
    return mapped


def to_metres(disparity: Array, baseline_fx: float) -> Array:
    """Depth from the numbers of a disparity file, (H, W) float32; 0 where nothing was measured.

    Args:
        disparity: (H, W) uint16: 0 for nothing, else 256 times the disparity in pixels, plus 1.
        baseline_fx: Distance of the cameras in metres times the focal length in pixels.
    """
    pixels = (disparity.astype(np.float32) - 1) / 256
    known = pixels > 0
    metres: Array = np.where(known, np.float32(baseline_fx) / np.where(known, pixels, 1), 0).astype(np.float32)
    return metres


def as_stored(metres: Array) -> Array:
    """In the half precision in which ESANet's code keeps depth, (H, W) float16; the farthest become infinite."""
    with np.errstate(over="ignore"):
        return metres.astype(np.float16)


def as_used(stored: Array) -> Array:
    """(H, W) float32, 0 where depth is beyond `FAR_M`."""
    metres = stored.astype(np.float32)
    metres[~(metres <= FAR_M)] = 0
    return metres


@dataclass(frozen=True)
class Stereo:
    """Where the depth of a frame comes from.

    Args:
        disparity: Its file.
        camera: File of the camera's parameters.
    """

    disparity: Path
    camera: Path

    def __str__(self) -> str:
        return str(self.disparity)

    def read(self) -> Array:
        """Depth in metres as it is stored, (H, W) float16.

        Raises:
            Unreadable: a file is absent or damaged.
        """
        try:
            camera = json.loads(self.camera.read_text(encoding="utf-8"))
            baseline_fx = float(camera["extrinsic"]["baseline"]) * float(camera["intrinsic"]["fx"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Unreadable(f"the camera's parameters in {self.camera} cannot be read ({error!r})") from None
        return as_stored(to_metres(read_depth(self.disparity), baseline_fx))


def read_metres(place: Any) -> Array:
    """Depth in metres, (H, W) float32, from a `Stereo` or a prepared ``.npy`` file."""
    return as_used(place.read() if isinstance(place, Stereo) else read_npy(place))


@dataclass(frozen=True)
class Frame:
    """A published frame.

    Args:
        split: As published.
        city: Where it was taken.
        name: City, sequence and number.
    """

    split: str
    city: str
    name: str

    def file(self, kind: str) -> str:
        """Path of a published file, from the root."""
        folder, end = OFFICIAL[kind]
        return f"{folder}/{self.split}/{self.city}/{self.name}{end}"

    def stereo(self, root: Path) -> Stereo:
        """Where its depth comes from."""
        return Stereo(root / self.file("disparity"), root / self.file("camera"))


def find_frames(root: Path, split: str, kinds: Sequence[str]) -> list[Frame]:
    """Frames of a split, sorted by city and name.

    Raises:
        DataError: there is none, or files of other kinds are missing.
    """
    folder, end = OFFICIAL["rgb"]
    paths = sorted((root / folder / split).glob(f"*/*{end}"))
    frames = [Frame(split, path.parent.name, path.name.removesuffix(end)) for path in paths]
    if not frames:
        raise DataError(f"{root / folder / split}: no file CITY/*{end}")
    for kind in kinds:
        absent = [frame.file(kind) for frame in frames if not (root / frame.file(kind)).is_file()]
        if absent:
            raise DataError(
                f"{root}: {len(absent)} of {len(frames)} frames of {split} lack a {kind} file, the first is {absent[0]}"
            )
    return frames


def official_source(root: Path, depth: Depth) -> Source:
    """Parts that are read from the published files.

    Raises:
        DataError: files are missing.
    """
    kinds = ["label", "disparity", *(["camera"] if depth == "metres" else [])]
    parts = {part: find_frames(root, split, kinds) for part, (split, _) in SPLITS.items()}

    def items(frames: Sequence[Frame]) -> tuple[Item, ...]:
        groups = number_groups([frame.city for frame in frames])
        return tuple(item(frame, group) for frame, group in zip(frames, groups, strict=True))

    def item(frame: Frame, group: int) -> Item:
        place = frame.stereo(root) if depth == "metres" else root / frame.file("disparity")
        return Item(
            frame.name, {"rgb": root / frame.file("rgb"), modality_of(depth): place}, root / frame.file("label"), group
        )

    return Source(items(parts["train"]), items(parts["test"]), readers(depth), Targets(read_label_ids), "city")


def modality_of(depth: Depth) -> str:
    """Name of the second modality."""
    return "depth" if depth == "metres" else "disparity"


def readers(depth: Depth) -> dict[str, Reader]:
    """Modality -> reader."""
    return {"rgb": read_colour, modality_of(depth): read_metres if depth == "metres" else read_depth}


def prepared_source(root: Path, depth: Depth) -> Source:
    """Parts that are read from the prepared tree.

    Raises:
        DataError: a list is absent or empty, or lists of a part differ in length.
    """
    train, test = (_listed(root, split, depth) for _, split in SPLITS.values())
    return Source(train, test, readers(depth), Targets(read_label_map), "city")


def _listed(root: Path, split: str, depth: Depth) -> tuple[Item, ...]:
    kinds = ("rgb", DEPTH_FOLDERS[depth], "labels_19")
    columns = [read_lines(root / f"{split}_{kind}.txt") for kind in kinds]
    if len({len(column) for column in columns}) != 1:
        raise DataError(f"{root}: the lists {split}_*.txt have {[len(column) for column in columns]} lines")
    groups = number_groups([rgb.partition("/")[0] for rgb in columns[0]])
    items = []
    for group, *files in zip(groups, *columns, strict=True):
        rgb, place, label = (root / split / kind / file for kind, file in zip(kinds, files, strict=True))
        items.append(
            Item(rgb.name.removesuffix(OFFICIAL["rgb"][1]), {"rgb": rgb, modality_of(depth): place}, label, group)
        )
    return tuple(items)


def write_tree(source: Path, target: Path, track: Track) -> None:
    """The prepared tree of training and validation; the labels of the test split are withheld, so it is left out."""
    for published, split in SPLITS.values():
        frames = find_frames(source, published, [kind for kind in OFFICIAL if kind != "rgb"])
        lists: dict[str, list[str]] = {}
        for frame in track(f"writing {split}", frames):
            for kind, path in _write_frame(source, target / split, frame).items():
                lists.setdefault(kind, []).append(f"{frame.city}/{path.name}")
        for kind, lines in lists.items():
            write_lines(target / f"{split}_{kind}.txt", lines)


def _write_frame(source: Path, folder: Path, frame: Frame) -> dict[str, Path]:
    """Kind -> file that is there now."""
    end = {kind: OFFICIAL[kind][1] for kind in OFFICIAL}
    names = {
        "rgb": end["rgb"],
        "disparity_raw": end["disparity"],
        "depth_raw": "_depth.npy",
        "labels_33": end["label"],
        "labels_19": end["label"],
    }
    files = {kind: folder / kind / frame.city / f"{frame.name}{name}" for kind, name in names.items()}
    for kind, published in (("rgb", "rgb"), ("disparity_raw", "disparity"), ("labels_33", "label")):
        place_copy(source / frame.file(published), files[kind])
    try:
        write_array(files["depth_raw"], frame.stereo(source).read)
        write_array(files["labels_19"], partial(read_label_ids, source / frame.file("label")))
    except Unreadable as error:
        raise DataError(f"{source}: {frame.name}: {error}") from None
    return files
