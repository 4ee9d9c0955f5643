"""SUN RGB-D in both of its forms: as it is published, and with label files and lists beside the pictures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from robustmm import DataError, Track

from ._cells import Unreadable
from ._files import Array
from ._images import Item, Reader, read_colour, read_depth, read_label_map
from ._matlab import Slot, load_matlab, shape_of
from ._published import Source, Targets, number_groups, read_lines
from ._written_once import place_copy, write_array, write_lines

PICTURES, TOOLBOX = "SUNRGBD", "SUNRGBDtoolbox"
META, LABELS = f"{TOOLBOX}/Metadata/SUNRGBDMeta.mat", f"{TOOLBOX}/Metadata/SUNRGBD2Dseg.mat"
#: The folder has another name in the file that comes with the toolbox than in the toolbox.
SPLITS = (f"{TOOLBOX}/traintestSUNRGBD/allsplit.mat", f"{TOOLBOX}/traintestsplit/allsplit.mat")
SEGLABEL = "SUNRGBD2Dseg/seglabel"
#: Depth beyond this is not trusted; from the toolbox.
FAR_MM = 8000
Depth = Literal["refined", "raw"]
Values = Literal["raw_rotated", "mm"]
#: Depth -> folder of a frame: holes filled, or as measured.
DEPTH_FOLDERS: dict[Depth, str] = {"refined": "depth_bfx", "raw": "depth"}
PARTS = ("train", "test")


def rotated_to_mm(values: Array) -> Array:
    """Millimetres from the numbers of a depth file, (H, W) uint16, clipped at 8 m.

    The files hold 16 bits rotated to the left by three. Most codes read the numbers as they stand, which are then eight
    times the millimetres wherever the rotation carried nothing over.
    """
    values = values.astype(np.uint16)
    depth_mm: Array = np.minimum((values >> 3) | (values << 13), np.uint16(FAR_MM))
    return depth_mm


def read_depth_mm(path: Path) -> Array:
    """A depth file in mm, (H, W) uint16."""
    return rotated_to_mm(read_depth(path))


def read_slot_label(slot: Slot) -> Array:
    """A label map of the MATLAB file, (W, H) there, as (H, W) uint8 with 0 for void.

    Raises:
        Unreadable: the file is damaged, or holds labels that 8 bits do not hold.
    """
    label = slot.read()
    if label.ndim != 2 or label.dtype.kind not in "uf":
        raise Unreadable(f"has shape {label.shape} and type {label.dtype}; a label map has two axes")
    whole = np.ascontiguousarray(label.T).astype(np.uint8)
    if (whole != label.T).any():
        raise Unreadable(f"holds labels {label.min()} to {label.max()}; expected whole numbers from 0 to 37")
    return whole


@dataclass(frozen=True)
class Frame:
    """A frame as the metadata describe it.

    Args:
        folder: Below ``SUNRGBD``; also its stable name.
        picture: Name of its picture.
        depth: Name of its depth file.
        train: Whether it is for training.
        index: Position in the metadata, and in the labels.
    """

    folder: str
    picture: str
    depth: str
    train: bool
    index: int

    def file(self, kind: str) -> str:
        """Path of a file of the frame, from the root: ``image``, ``depth``, ``depth_bfx`` or ``label``."""
        name = {"image": self.picture, "label": "label.npy"}.get(kind, self.depth)
        return f"{PICTURES}/{self.folder}/{kind}/{name}"


def read_frames(root: Path) -> list[Frame]:
    """The frames in the order of the metadata.

    Raises:
        DataError: a file is absent, damaged or of another content.
    """
    split = next((root / name for name in SPLITS if (root / name).is_file()), root / SPLITS[0])
    (listed,) = load_matlab(split, "alltrain")
    train = {below_pictures(str(path), split) for path in np.atleast_1d(listed)}
    (meta,) = load_matlab(root / META, "SUNRGBDMeta")
    frames = []
    for index, one in enumerate(np.atleast_1d(meta)):
        try:
            path, picture, depth = (str(getattr(one, field)) for field in ("rgbpath", "rgbname", "depthname"))
        except AttributeError as error:
            raise DataError(f"{root / META}: entry {index + 1}: {error}; is it the published file?") from None
        folder = below_pictures(path, root / META).rsplit("/", 2)[0]  # without image/NAME
        frames.append(Frame(folder, picture, depth, folder in train, index))
    if not any(frame.train for frame in frames):
        raise DataError(f"{split}: none of its {len(train)} frames is in {root / META}, the first is {min(train)}")
    return frames


def below_pictures(path: str, origin: Path) -> str:
    """A path of the publishers' machine, such as ``/n/fs/sun3d/data/SUNRGBD/kv1/...``, below ``SUNRGBD``.

    Raises:
        DataError: it is none.
    """
    _, found, below = path.partition(f"/{PICTURES}/")
    if not found:
        raise DataError(f"{origin}: '{path}' is no path below {PICTURES}")
    return "/".join(part for part in below.split("/") if part)


def scan_of(folder: str) -> str:
    """What frames are kept together in carving: the scan of a SUN3D frame, any other frame alone."""
    return folder.rpartition("/")[0] if "/sun3ddata/" in f"/{folder}" else folder


def official_source(root: Path, depth: Depth, values: Values) -> Source:
    """Parts that are read from the published files, label by label.

    Raises:
        DataError: a file is absent or damaged, or they do not fit together.
    """
    frames = read_frames(root)
    count = int(np.prod(shape_of(root / LABELS, SEGLABEL)))
    if count != len(frames):
        raise DataError(f"{root / LABELS}: {count} label maps, {META} has {len(frames)} frames")

    def items(chosen: list[Frame]) -> tuple[Item, ...]:
        groups = number_groups([scan_of(frame.folder) for frame in chosen])
        return tuple(item(frame, group) for frame, group in zip(chosen, groups, strict=True))

    def item(frame: Frame, group: int) -> Item:
        places = {"rgb": root / frame.file("image"), "depth": root / frame.file(DEPTH_FOLDERS[depth])}
        return Item(frame.folder, places, Slot(root / LABELS, SEGLABEL, frame.index), group)

    train, test = (items([frame for frame in frames if frame.train == wanted]) for wanted in (True, False))
    return Source(train, test, readers(values), Targets(read_slot_label), "scan")


def readers(values: Values) -> dict[str, Reader]:
    """Modality -> reader."""
    return {"rgb": read_colour, "depth": read_depth_mm if values == "mm" else read_depth}


def prepared_source(root: Path, depth: Depth, values: Values) -> Source:
    """Parts that are read from lists.

    Raises:
        DataError: a list is absent or empty, or lists of a part differ in length.
    """
    train, test = (_listed(root, part, depth) for part in PARTS)
    return Source(train, test, readers(values), Targets(read_label_map), "scan")


def _listed(root: Path, part: str, depth: Depth) -> tuple[Item, ...]:
    columns = [read_lines(root / f"{part}_{kind}.txt") for kind in ("rgb", "depth", "label")]
    if len({len(column) for column in columns}) != 1:
        raise DataError(f"{root}: the lists {part}_*.txt have {[len(column) for column in columns]} lines")
    folders = [rgb.rsplit("/", 2)[0].removeprefix(f"{PICTURES}/") for rgb in columns[0]]
    groups = number_groups([scan_of(folder) for folder in folders])
    items = []
    for folder, group, rgb, filled, label in zip(folders, groups, *columns, strict=True):
        depth_file = filled.replace("/depth_bfx/", f"/{DEPTH_FOLDERS[depth]}/")
        items.append(Item(folder, {"rgb": root / rgb, "depth": root / depth_file}, root / label, group))
    return tuple(items)


def write_tree(source: Path, target: Path, track: Track) -> None:
    """The prepared tree: label files, lists, and the pictures where ``target`` is another folder."""
    frames = read_frames(source)
    for frame in track("writing", frames):
        for kind in ("image", *DEPTH_FOLDERS.values()):
            place_copy(source / frame.file(kind), target / frame.file(kind))
        try:
            label = Slot(source / LABELS, SEGLABEL, frame.index)
            write_array(target / frame.file("label"), partial(read_slot_label, label))
        except Unreadable as error:
            raise DataError(f"{source / LABELS}: {frame.folder}: {error}") from None
    for part in PARTS:
        chosen = [frame for frame in frames if frame.train == (part == "train")]
        for name, kind in (("rgb", "image"), ("depth", "depth_bfx"), ("label", "label")):
            write_lines(target / f"{part}_{name}.txt", [frame.file(kind) for frame in chosen])
