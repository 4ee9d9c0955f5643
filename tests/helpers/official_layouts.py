"""Writes tiny data sets in the exact layouts in which NYUv2, SUN RGB-D and Cityscapes are published.

Contents are drawn from a fixed seed; folders, file names, axis orders, types and units are those of the real files.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import scipy.io

#: Modest sizes, (H, W); the real ones are 480 x 640 and 1024 x 2048.
NYU_SIZE = (48, 64)
CITYSCAPES_SIZE = (64, 128)
#: The real lists start alike: 1, 2, 9, ... for testing and 3, 4, 5, ... for training.
NYU_TEST = (1, 2, 9)
NYU_TRAIN = (3, 4, 5, 6, 7, 8, 10, 11, 12)
#: Frame folder -> size, and whether it is for training. The four cameras have four sizes.
SUN_FRAMES = {
    "kv1/NYUdata/NYU0001": ((43, 57), False),
    "kv1/NYUdata/NYU0002": ((43, 57), True),
    "kv1/NYUdata/NYU0003": ((43, 57), True),
    "kv2/kinect2data/000002_2014-05-26_14-23-37_260595134347_rgbf000103-resize": ((53, 73), True),
    "kv2/kinect2data/000003_2014-05-26_14-24-00_260595134347_rgbf000100-resize": ((53, 73), True),
    "kv2/kinect2data/000004_2014-05-26_14-24-30_260595134347_rgbf000090-resize": ((53, 73), False),
    "realsense/lg/2014_10_21-18_16_49-1311000073": ((54, 68), True),
    "realsense/lg/2014_10_21-18_17_00-1311000073": ((54, 68), False),
    "xtion/sun3ddata/harvard_c11/hv_c11_2/0000041": ((44, 59), True),
    "xtion/sun3ddata/harvard_c11/hv_c11_2/0000081": ((44, 59), True),
    "xtion/sun3ddata/hotel_umd/maryland_hotel3/0000021": ((44, 59), True),
    "xtion/sun3ddata/hotel_umd/maryland_hotel3/0000061": ((44, 59), True),
}
SUN_PREFIX = "/n/fs/sun3d/data/SUNRGBD/"
#: Split -> city -> frames.
CITIES = {
    "train": {"aachen": 3, "bochum": 3, "zurich": 3},
    "val": {"frankfurt": 2, "munster": 1},
    "test": {"berlin": 1},
}
#: baseline times fx of the example in the tests.
CAMERA = {"extrinsic": {"baseline": 0.209313}, "intrinsic": {"fx": 473.5748 / 0.209313, "fy": 2265.3, "u0": 1, "v0": 1}}


def write_official(name: str, folder: Path) -> Path:
    """Write the tiny set of a data set plugin; returns the folder for its option ``root``."""
    writers: dict[str, Callable[[Path], None]] = {
        "nyuv2": write_nyuv2,
        "sunrgbd": write_sunrgbd,
        "cityscapes": write_cityscapes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    writers[name](folder)
    return folder


def blocks(draw: np.random.Generator, size: tuple[int, int], values: Any) -> np.ndarray:
    """(H, W) of a few large blocks, so that nearest resizing keeps every value."""
    coarse = draw.choice(np.asarray(values), (4, 4))
    return np.kron(coarse, np.ones((-(-size[0] // 4), -(-size[1] // 4)), coarse.dtype))[: size[0], : size[1]]


def write_nyuv2(folder: Path) -> None:
    """``nyu_depth_v2_labeled.mat`` (HDF5) and three files of version 5."""
    draw = np.random.default_rng(0)
    count, (height, width) = len(NYU_TEST) + len(NYU_TRAIN), NYU_SIZE
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as file:
        images = draw.integers(0, 256, (count, 3, width, height), dtype=np.uint8)
        depths = draw.uniform(0.7, 10.0, (count, width, height)).astype(np.float32)
        depths[0, 0, 0] = 2.0
        raw = np.where(draw.uniform(size=depths.shape) < 0.2, 0, depths).astype(np.float32)
        labels = np.stack([blocks(draw, NYU_SIZE, [0, 1, 3, 5, 21, 157, 894]).T for _ in range(count)])
        file["images"], file["depths"], file["rawDepths"] = images, depths, raw
        file["labels"], file["instances"] = labels.astype(np.uint16), np.ones_like(labels, np.uint8)
        write_cells(file, "scenes", [f"kitchen_{number // 3:04d}" for number in range(count)], (1, count))
        file["accelData"] = np.zeros((4, count), np.float32)
    write_header(folder / "nyu_depth_v2_labeled.mat")
    splits = {"trainNdxs": NYU_TRAIN, "testNdxs": NYU_TEST}
    scipy.io.savemat(
        folder / "splits.mat", {name: np.array(numbers, np.uint16)[:, None] for name, numbers in splits.items()}
    )
    to_40 = (np.arange(894) * 7 % 40 + 1).astype(np.uint8)[None]
    names = np.array([[f"class {label}" for label in range(1, 41)]], object)
    scipy.io.savemat(folder / "classMapping40.mat", {"mapClass": to_40, "className": names})
    to_13 = (np.arange(40) * 5 % 13 + 1).astype(np.uint8)[None]
    mapping = {"labels13": to_13, "classNames": names[:, :13]}
    scipy.io.savemat(folder / "class13Mapping.mat", {"classMapping13": mapping})


def write_header(path: Path) -> None:
    """What MATLAB puts before an HDF5 file of version 7.3: a text, the version and the order of bytes."""
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Tue Sep 25 18:40:00 2012 HDF5 schema 1.00 ."
    with path.open("r+b") as file:
        file.write(text.ljust(124) + b"\x00\x02IM")


def write_cells(file: h5py.File, key: str, texts: list[str], shape: tuple[int, int]) -> None:
    """A cell array of texts as MATLAB 7.3 keeps it: references to columns of character codes."""
    references = np.empty(shape, h5py.ref_dtype)
    for index, text in enumerate(texts):
        place = f"#refs#/{key}{index}"
        file[place] = np.array([[ord(letter)] for letter in text], np.uint16)
        references.flat[index] = file[place].ref
    file.create_dataset(key, data=references, dtype=h5py.ref_dtype)


def write_sunrgbd(folder: Path) -> None:
    """``SUNRGBD`` with its frames, and ``SUNRGBDtoolbox`` with metadata, labels and split."""
    draw = np.random.default_rng(1)
    toolbox = folder / "SUNRGBDtoolbox"
    for name in ("Metadata", "traintestSUNRGBD"):
        (toolbox / name).mkdir(parents=True)
    fields = ["sequenceName", "rgbpath", "rgbname", "depthpath", "depthname"]
    meta = np.empty((1, len(SUN_FRAMES)), [(field, object) for field in fields])
    with h5py.File(toolbox / "Metadata/SUNRGBD2Dseg.mat", "w", userblock_size=512) as file:
        references = np.empty((len(SUN_FRAMES), 1), h5py.ref_dtype)
        for index, (frame, (size, _)) in enumerate(SUN_FRAMES.items()):
            write_sun_frame(folder / "SUNRGBD" / frame, f"{index:06d}", size, draw)
            place = SUN_PREFIX + frame
            meta[0, index] = (
                f"SUNRGBD/{frame}",
                f"{place}/image/{index:06d}.jpg",
                f"{index:06d}.jpg",
                f"{place}/depth/{index:06d}.png",
                f"{index:06d}.png",
            )
            file[f"#refs#/label{index}"] = blocks(draw, size, [0, 1, 2, 5, 20, 37]).astype(np.uint8).T
            references[index, 0] = file[f"#refs#/label{index}"].ref
        file.create_dataset("SUNRGBD2Dseg/seglabel", data=references, dtype=h5py.ref_dtype)
    write_header(toolbox / "Metadata/SUNRGBD2Dseg.mat")
    scipy.io.savemat(toolbox / "Metadata/SUNRGBDMeta.mat", {"SUNRGBDMeta": meta})
    lists = {
        name: np.array([[SUN_PREFIX + frame for frame, (_, train) in SUN_FRAMES.items() if train == wanted]], object)
        for name, wanted in (("alltrain", True), ("alltest", False))
    }
    scipy.io.savemat(toolbox / "traintestSUNRGBD/allsplit.mat", lists)


def write_sun_frame(folder: Path, name: str, size: tuple[int, int], draw: np.random.Generator) -> None:
    """A picture, and depth of 16 bits in mm rotated to the left by three bits, filled and as measured."""
    for kind in ("image", "depth", "depth_bfx"):
        (folder / kind).mkdir(parents=True)
    cv2.imwrite(str(folder / f"image/{name}.jpg"), draw.integers(0, 256, (*size, 3), dtype=np.uint8))
    depth_mm = draw.integers(500, 8192, size, dtype=np.uint16)
    depth_mm[0, 0] = 2000
    cv2.imwrite(str(folder / f"depth_bfx/{name}.png"), depth_mm << 3)
    depth_mm[draw.uniform(size=size) < 0.2] = 0
    cv2.imwrite(str(folder / f"depth/{name}.png"), depth_mm << 3)
    (folder / "intrinsics.txt").write_text("529.5 0 365 0 529.5 265 0 0 1")
    (folder / "scene.txt").write_text("office")


def write_cityscapes(folder: Path) -> None:
    """``leftImg8bit``, ``gtFine``, ``disparity`` and ``camera``, each by split and city."""
    draw = np.random.default_rng(2)
    for split, cities in CITIES.items():
        for city, frames in cities.items():
            for frame in range(frames):
                write_city_frame(folder, split, city, f"{city}_{frame:06d}_000019", draw)


def write_city_frame(folder: Path, split: str, city: str, name: str, draw: np.random.Generator) -> None:
    """The files of a frame; labels of the test part are withheld: ignored classes alone."""
    kinds = {kind: folder / kind / split / city for kind in ("leftImg8bit", "gtFine", "disparity", "camera")}
    for place in kinds.values():
        place.mkdir(parents=True, exist_ok=True)
    colour = draw.integers(0, 256, (*CITYSCAPES_SIZE, 3), dtype=np.uint8)
    cv2.imwrite(str(kinds["leftImg8bit"] / f"{name}_leftImg8bit.png"), colour)
    labels = blocks(draw, CITYSCAPES_SIZE, [3] if split == "test" else [0, 4, 7, 8, 11, 23, 26, 33]).astype(np.uint8)
    cv2.imwrite(str(kinds["gtFine"] / f"{name}_gtFine_labelIds.png"), labels)
    cv2.imwrite(str(kinds["gtFine"] / f"{name}_gtFine_instanceIds.png"), labels.astype(np.uint16) * 1000)
    (kinds["gtFine"] / f"{name}_gtFine_polygons.json").write_text("{}")
    disparity = draw.integers(800, 30000, CITYSCAPES_SIZE, dtype=np.uint16)
    disparity[0, :4] = 0, 1, 257, 12801
    cv2.imwrite(str(kinds["disparity"] / f"{name}_disparity.png"), disparity)
    (kinds["camera"] / f"{name}_camera.json").write_text(json.dumps(CAMERA))
