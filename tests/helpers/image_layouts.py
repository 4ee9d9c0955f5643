"""Writes tiny sets of pictures: prepared and published forms of pothole_rgbd and ms_lesion_mri, and own folders.

``write_prepared("pothole_rgbd", folder)`` gives a root with which the data set, and every configuration of it, can be
built without the real files. Contents are drawn from a fixed seed; names, folders, types and units are the real ones.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

#: Prepared pictures are this small here, (H, W).
SIZE = (32, 40)
POTHOLE_SPLITS = {
    "train": [f"d1_{frame:02d}" for frame in range(1, 7)],
    "val": ["d2_21", "d2_22"],
    "test": ["d2_27", "d2_28", "d3_01"],
}
PATIENTS = ("p07", "p19", "p26")
SEQUENCES = ("flair", "t1", "t1post", "t2")
SLICES = range(30, 70, 2)
#: Of the published pictures of potholes, far smaller than the real 1028 x 1710.
FRAME_SIZE = (64, 108)
VOLUME_SHAPE = (182, 218, 182)
PATIENT_FILES = {
    **{name: f"{name.upper()}_N4_noneck_reduced_winsor_regtoFLAIR_brain_N4_regtoMNI.nii.gz" for name in SEQUENCES},
    "label": "GOLD_STANDARD_N4_noneck_reduced_winsor_regtoFLAIR_regtoMNI.nii.gz",
}


def write_prepared(name: str, folder: Path) -> Path:
    """Write the tiny set of a data set plugin in the form that it reads; returns the folder for its option ``root``."""
    writers: dict[str, Callable[[Path], None]] = {
        "pothole_rgbd": write_pothole,
        "ms_lesion_mri": write_lesion,
        "blocks_rgbd_sim": write_blocks,
    }
    folder.mkdir(parents=True, exist_ok=True)
    writers[name](folder)
    return folder


def save(path: Path, values: np.ndarray) -> None:
    """Write a picture; the suffix says in which form."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"lossless": True} if path.suffix == ".webp" else {}
    Image.fromarray(values).save(path, **options)


def disc(draw: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A disc somewhere in the middle, (H, W) bool."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    centre = draw.uniform(0.35, 0.65, 2) * size
    return np.hypot(rows - centre[0], columns - centre[1]) < 0.2 * min(size)


def colours(draw: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """Noise of 8 bits."""
    return draw.integers(0, 256, tuple(shape), dtype=np.uint8)


def write_pothole(folder: Path) -> None:
    """rgb/*.jpg, disparity/*.png (16 bits, 0 = none), label/*.png, splits.json."""
    draw = np.random.default_rng(0)
    for name in (name for names in POTHOLE_SPLITS.values() for name in names):
        label = disc(draw, SIZE)
        disparity = 40000 - 9000 * label + draw.integers(-50, 50, SIZE) + draw.integers(-3000, 3000)
        disparity[:2, :3] = 0
        save(folder / "rgb" / f"{name}.jpg", colours(draw, (*SIZE, 3)))
        save(folder / "disparity" / f"{name}.png", disparity.astype(np.uint16))
        save(folder / "label" / f"{name}.png", label.astype(np.uint8))
    (folder / "splits.json").write_text(json.dumps(POTHOLE_SPLITS))


def write_lesion(folder: Path, patients: Sequence[str] = PATIENTS) -> None:
    """flair/, t1/, t1post/, t2/ and label/ of 8-bit PNG files pPP_zZZZ.png, meta.json."""
    draw = np.random.default_rng(0)
    for patient in patients:
        for place in SLICES:
            label = disc(draw, SIZE)
            for sequence in SEQUENCES:
                picture = np.clip(draw.normal(80, 15, SIZE) + (60 * label if sequence == "flair" else 0), 0, 255)
                save(folder / sequence / f"{patient}_z{place:03d}.png", picture.astype(np.uint8))
            save(folder / "label" / f"{patient}_z{place:03d}.png", label.astype(np.uint8))
    (folder / "meta.json").write_text(json.dumps({patient: {"slices": len(SLICES)} for patient in patients}))


def write_blocks(folder: Path) -> None:
    """rgb/*.webp, depth/*.png (16 bits, mm), label/*.png with 255 as void, splits.json."""
    draw = np.random.default_rng(0)
    parts = {"train": range(6), "val": range(200, 202), "test": range(240, 243)}
    for number in (number for numbers in parts.values() for number in numbers):
        label = np.where(disc(draw, SIZE), draw.integers(2, 6), 0)
        label[0], label[1:6] = 255, 1
        depth = np.where(label == 255, 0, 1500 - 100 * label + draw.integers(-3, 3, SIZE))
        save(folder / "rgb" / f"{number:04d}.webp", colours(draw, (*SIZE, 3)))
        save(folder / "depth" / f"{number:04d}.png", depth.astype(np.uint16))
        save(folder / "label" / f"{number:04d}.png", label.astype(np.uint8))
    splits = {part: [f"{number:04d}" for number in numbers] for part, numbers in parts.items()}
    (folder / "splits.json").write_text(json.dumps(splits))


def write_pothole_repository(folder: Path, frames: Mapping[int, int]) -> None:
    """The authors' repository: dataset1..3/{rgb,disp_tg,label}/NN.png, the label drawn in red (153, 0, 0).

    Args:
        folder: The clone.
        frames: Data set -> number of frames.
    """
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "LICENSE").write_text("MIT License\n")
    for number, count in frames.items():
        for frame in range(1, count + 1):
            hole = disc(draw, FRAME_SIZE)
            disparity = np.where(hole, 30000, 40000).astype(np.uint16)
            disparity[:8, :8] = 0
            red = np.zeros((*FRAME_SIZE, 3), np.uint8)
            red[hole, 0] = 153
            place = folder / f"dataset{number}"
            save(place / "rgb" / f"{frame:02d}.png", colours(draw, (*FRAME_SIZE, 3)))
            save(place / "disp_tg" / f"{frame:02d}.png", disparity)
            save(place / "label" / f"{frame:02d}.png", red)


def write_nifti(
    path: Path, values: np.ndarray, *, order: str = "<", slope: float = 1.0, intercept: float = 0.0
) -> None:
    """A NIfTI-1 file of one volume, as it stands in the format's definition; gzip-compressed where the name says so."""
    codes = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "u2": 512}
    kind = values.dtype.newbyteorder(order)
    header = bytearray(352)
    struct.pack_into(order + "i", header, 0, 348)
    shape = (values.ndim, *values.shape, *[1] * (7 - values.ndim))
    struct.pack_into(order + "8h", header, 40, *shape)
    struct.pack_into(order + "2h", header, 70, codes[kind.str[1:]], 8 * kind.itemsize)
    struct.pack_into(order + "3f", header, 108, 352.0, slope, intercept)
    header[344:348] = b"n+1\x00"
    content = bytes(header) + values.astype(kind).tobytes(order="F")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)


def write_lesion_repository(folder: Path, patients: Sequence[str]) -> None:
    """The published volumes of some patients: brain in the slices 32 to 60, one lesion at x 60..70, y 100..112."""
    for patient in patients:
        place = folder / "cross_sectional" / "MNI" / f"patient{patient[1:]}"
        lesion = np.zeros(VOLUME_SHAPE, np.uint8)
        lesion[60:70, 100:112, 40:50] = 1
        brain = np.zeros(VOLUME_SHAPE, np.int16)
        brain[40:140, 40:180, 32:61] = 100
        for sequence in SEQUENCES:
            values = brain + (50 * lesion if sequence == "flair" else 0)
            write_nifti(place / PATIENT_FILES[sequence], values.astype(np.int16))
        write_nifti(place / PATIENT_FILES["label"], lesion)


def write_folder(folder: Path, parts: Mapping[str, int], *, lists: bool = False, void: bool = True) -> None:
    """A tree for the data set image_folder: three classes; ``rgb`` (JPEG), ``thermal`` (8 bits), ``depth`` (16 bits).

    Args:
        folder: Its root.
        parts: Part -> number of samples.
        lists: Write one tree with a list per part, rather than a tree per part.
        void: Whether label maps hold 255.
    """
    draw = np.random.default_rng(0)
    for part, count in parts.items():
        place = folder if lists else folder / part
        names = [f"{part}_{number}" if lists else f"{number:03d}" for number in range(count)]
        for name in names:
            label = disc(draw, SIZE) * draw.integers(1, 3)
            if void:
                label[:2] = 255
            save(place / "rgb" / f"{name}.jpg", colours(draw, (*SIZE, 3)))
            save(place / "thermal" / f"{name}.png", colours(draw, SIZE))
            save(place / "depth" / f"{name}.png", draw.integers(0, 2**16, SIZE).astype(np.uint16))
            save(place / "label" / f"{name}.png", label.astype(np.uint8))
        if lists:
            (folder / f"{part}.txt").write_text("\n".join(names) + "\n")
