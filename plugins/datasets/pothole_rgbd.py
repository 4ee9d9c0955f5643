"""Potholes in road frames of a stereo rig: colour, disparity and a hand-made label; real data, not shipped.

The published disparity was transformed by the authors so that the flat road is constant, and scaled frame by frame to
0 to 65535: it is not metric, and its level differs from frame to frame. By default the median of a frame's valid pixels
is therefore subtracted from them, so that the road lies at 0. Pixels without disparity keep a value of their own.

The parts are made by place, so that one pothole seen from several sides never lies in two of them: of the authors'
three data sets, 1 and the frames 1 to 20 of 2 are for training, 21 to 26 of 2 for validation, 27 to 40 of 2 and all of
3 for testing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import Field

from robustmm import (
    Augmentation,
    Component,
    DataError,
    DataSplits,
    Modality,
    Options,
    Reading,
    Scaling,
    Track,
    hookimpl,
)

from ._cells import Unreadable
from ._files import Array, locate
from ._image_tree import Column, Tree, read_splits
from ._images import import_cv2, read_colour, read_depth
from ._written_once import read_back, write_array, write_bytes

NAME = "pothole_rgbd"
CLASSES = ("road", "pothole")
COLOURS = ((128, 128, 128), (220, 50, 47))
OBTAIN = (
    "Clone github.com/ruirangerfan/stereo_pothole_datasets and run robustmm data prepare pothole_rgbd CLONE FOLDER, "
    "which writes rgb/, disparity/ and label/ too."
)
#: Centred disparity of pixels that have none: below every difference of two 16-bit values.
NO_DISPARITY = -65536.0
#: Published data set -> its number of frames.
FRAMES = {1: 22, 2: 40, 3: 5}
#: (H, W) of the prepared pictures; published are 1028 x 1710 to 1030 x 1730.
PREPARED_SIZE = (256, 432)
#: Share of a prepared pixel's area that must have disparity.
LEAST_COVER = 0.25


class PotholeOptions(Options):
    """Options of the data set.

    Args:
        root: Folder of the prepared files; variables are expanded.
        size: (H, W) of inputs; prepared files are 256 x 432.
        centre_disparity: Subtract the median of each frame's valid disparities.
        augmentation: Of training.
    """

    root: str = Field("$ROBUSTMM_DATA/pothole_rgbd", description="folder of the prepared files")
    size: tuple[int, int] = Field((128, 216), description="[H, W] of inputs; the files are 256 x 432")
    centre_disparity: bool = Field(True, description="subtract each frame's median: its scale is the frame's own")
    augmentation: Augmentation | None = Field(
        Augmentation(rescale=(1.0, 1.4), flip=0.5, hue=0.1, saturation=0.1, value=25.0), description="of training"
    )

    @classmethod
    def contract_example(cls) -> None:
        """None: the data are not shipped."""
        return


#: What `read_centred` does, for users of a trained run.
CENTRED = f"less the median of the frame's valid pixels, {NO_DISPARITY:g} where a pixel is 0"


def read_centred(path: Path) -> Array:
    """Disparity less the median of the frame's valid pixels, (H, W) float32; `NO_DISPARITY` where there is none.

    Raises:
        Unreadable: as for `read_depth`, or no pixel is valid.
    """
    raw = read_depth(path)
    valid = raw > 0
    if not valid.any():
        raise Unreadable("has no valid pixel, all are 0")
    return np.where(valid, raw - np.float32(np.median(raw[valid])), np.float32(NO_DISPARITY))


def build_pothole_rgbd(
    root: str, size: tuple[int, int], centre_disparity: bool, augmentation: Augmentation | None
) -> DataSplits:
    """Colour, disparity and label maps, split by place.

    Raises:
        DataError: files are absent or damaged.
    """
    folder = locate(root, NAME, ["splits.json"], OBTAIN)
    invalid, read = (NO_DISPARITY, read_centred) if centre_disparity else (0.0, read_depth)
    disparity = Modality(
        "disparity",
        "image",
        (1, *size),
        Scaling(invalid=invalid),
        "1/65535 of the frame's range",
        Reading(resize="nearest", prepared=CENTRED if centre_disparity else ""),
    )
    columns = (
        Column(Modality("rgb", "image", (3, *size), unit="0-255"), "rgb", read_colour, "colour"),
        Column(disparity, "disparity", read, "exact"),
    )
    tree = Tree(folder, columns, "label", len(CLASSES))
    names = read_splits(folder / "splits.json")
    return DataSplits(
        tuple(column.modality for column in columns),
        "segmentation",
        CLASSES,
        tree.dataset(names["train"], augmentation),
        tree.dataset(names["test"]),
        tree.dataset(names["val"]),
        colours=COLOURS,
        notes={
            "split": "by place; the authors publish none",
            "disparity": "less the frame's median" if centre_disparity else "as published, scaled frame by frame",
            **{part: len(found) for part, found in names.items()},
            "licence": "MIT, Copyright (c) 2021 Rui (Ranger) Fan",
            "citation": "R. Fan, U. Ozgunalp, B. Hosking, M. Liu, I. Pitas: Pothole Detection Based on Disparity "
            "Transformation and Road Surface Modeling, IEEE Transactions on Image Processing, 2019",
        },
    )


def place_splits() -> dict[str, list[str]]:
    """Frames of each part, see the module's docstring."""
    names = {number: [f"d{number}_{frame:02d}" for frame in range(1, count + 1)] for number, count in FRAMES.items()}
    return {"train": names[1] + names[2][:20], "val": names[2][20:26], "test": names[2][26:] + names[3]}


def shrunk(values: Array) -> Array:
    """Averages over areas, (256, 432) float32 or with channels."""
    height, width = PREPARED_SIZE
    averaged: Array = import_cv2().resize(values, (width, height), interpolation=import_cv2().INTER_AREA)
    return averaged


def shrunk_colour(path: Path) -> Array:
    """(256, 432, 3) uint8."""
    return shrunk(read_colour(path))


def shrunk_disparity(path: Path) -> Array:
    """Averages over the valid pixels, (256, 432) uint16; 0 where less than a quarter of the area is valid."""
    raw = read_depth(path).astype(np.float32)
    cover = shrunk((raw > 0).astype(np.float32))
    mean = shrunk(raw) / np.maximum(cover, LEAST_COVER)
    return np.where(cover >= LEAST_COVER, np.rint(mean), 0).astype(np.uint16)


def shrunk_label(path: Path) -> Array:
    """1 where at least half of the area is marked in red, (256, 432) uint8."""
    marked = read_colour(path)[:, :, 0] > 0
    return (shrunk(marked.astype(np.float32)) >= 0.5).astype(np.uint8)


#: Folder of the prepared tree -> folder of the published one, and how its files are shrunk.
CONVERSIONS: dict[str, tuple[str, Callable[[Path], Array]]] = {
    "rgb": ("rgb", shrunk_colour),
    "disparity": ("disp_tg", shrunk_disparity),
    "label": ("label", shrunk_label),
}


def published_path(source: Path, name: str, folder: str) -> Path:
    """Where the authors keep a picture of the frame ``name``, such as ``d2_07``."""
    return source / f"dataset{name[1]}" / folder / f"{name[3:]}.png"


def converted(convert: Callable[[Path], Array], path: Path) -> Array:
    """A published picture, shrunk.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return convert(path)
    except Unreadable as error:
        raise DataError(f"{path}: {error}; download it again") from None


def prepare_pothole_rgbd(source: Path, target: Path, track: Track) -> str:
    """Pictures of 256 x 432 from the authors' repository; see `robustmm.registry.Prepare`.

    Raises:
        DataError: the source is not as published, or what was written cannot be read.
    """
    splits = place_splits()
    names = [name for part in splits.values() for name in part]
    paths = [published_path(source, name, folder) for name in names for folder, _ in CONVERSIONS.values()]
    absent = [path for path in paths if not path.is_file()]
    if absent:
        raise DataError(
            f"{source}: {len(absent)} of {len(paths)} files are not there, the first is {absent[0]}; expected a clone "
            "of github.com/ruirangerfan/stereo_pothole_datasets with dataset1..3/{rgb,disp_tg,label}/NN.png"
        )
    for name in track("pothole_rgbd", names):
        for folder, (published, convert) in CONVERSIONS.items():
            path = published_path(source, name, published)
            write_array(target / folder / f"{name}.png", partial(converted, convert, path))
    if (source / "LICENSE").is_file():
        write_bytes(target / "LICENSE", (source / "LICENSE").read_bytes())
    write_bytes(target / "splits.json", (json.dumps(splits, indent=1) + "\n").encode())
    made = build_pothole_rgbd(str(target), PREPARED_SIZE, True, None)
    read_back(made, track)
    return f"{target}: " + ", ".join(f"{len(part)} {name}" for name, part in splits.items())


@hookimpl
def robustmm_register_datasets(register: Callable[[Component], None]) -> None:
    """Offer the potholes."""
    register(
        Component(
            NAME,
            build_pothole_rgbd,
            PotholeOptions,
            "Road frames with disparity, pothole or road, 67 frames split by place; prepared from the authors' files.",
            "Fan et al., IEEE TIP 2019; github.com/ruirangerfan/stereo_pothole_datasets (MIT)",
            prepare=prepare_pothole_rgbd,
        )
    )
