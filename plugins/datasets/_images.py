"""Pictures and label maps in files: plain readers, and a data set that brings them to one size.

A reader takes what an item says of a modality (most often a path) and gives the raw values as an array, (H, W) or
(H, W, C). 8-bit values stay 8-bit until batches are made.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robustmm import VOID, Augmentation, DataError, JointTransform, Modality, Role, Sample

from ._cells import Unreadable
from ._files import Array

Reader = Callable[[Any], Array]
PNG_SIGNATURE, JPEG_SIGNATURE = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
#: How a file begins -> what must stand near its end.
END_MARKERS = {PNG_SIGNATURE: b"IEND\xaeB`\x82", JPEG_SIGNATURE: b"\xff\xd9"}
#: So far before the last byte the end marker may stand; some cameras append bytes of their own.
TAIL = 2**16
#: What a PNG of fewer than 8 bits is multiplied by when it is read as 8 bits.
GREY_STEPS = {1: 255, 2: 85, 4: 17}
PALETTE = 3
WAY_OUT = "mend or replace the file, or set on_unreadable: missing to count the modality as absent"
_log = logging.getLogger("robustmm.data")


@dataclass(frozen=True)
class Item:
    """Where a sample's parts are.

    Args:
        id: Stable name.
        places: Modality -> what its reader takes; a modality that is not named is missing.
        label: What the label reader takes.
        group: Place, subject or recording, for carving.
    """

    id: str
    places: Mapping[str, Any]
    label: Any
    group: int = 0


def read_colour(path: str | Path) -> Array:
    """Red, green and blue of a JPEG, PNG or other picture as it is stored, (H, W, 3) uint8.

    Raises:
        Unreadable: the file is absent, truncated or no picture.
    """
    cv2 = import_cv2()
    return _decode(_bytes(path), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def read_grey(path: str | Path) -> Array:
    """One channel of 8 bits, (H, W) uint8; colours are turned to grey.

    Raises:
        Unreadable: the file is absent, truncated or no picture.
    """
    cv2 = import_cv2()
    return _decode(_bytes(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)


def read_depth(path: str | Path) -> Array:
    """Raw values of a picture of one channel, (H, W), in the file's own type (8 or 16 bits, or float).

    Raises:
        Unreadable: the file is absent, truncated, no picture, or has colours.
    """
    cv2 = import_cv2()
    values = _decode(_bytes(path), cv2.IMREAD_UNCHANGED)
    if values.ndim != 2:
        raise Unreadable(f"has {values.shape[2]} channels; expected one, such as a 16-bit PNG of depth")
    return values


def read_label_map(path: str | Path) -> Array:
    """Class indices, (H, W) of 8 or 16 bits: a grey or palette PNG of any depth, or whole numbers in an ``.npy`` file.

    Raises:
        Unreadable: the file is absent, truncated, no picture, or has colours or fractions rather than indices.
    """
    if str(path).endswith(".npy"):
        values = read_npy(path)
        if values.ndim != 2 or values.dtype.kind == "f":
            raise Unreadable(
                f"has shape {values.shape} and type {values.dtype}; a label map is (H, W) of whole numbers"
            )
        return values
    data = _bytes(path)
    head = data[:32].tobytes()
    if head.startswith(PNG_SIGNATURE) and len(head) == 32 and head[25] == PALETTE:
        return _palette_indices(data)
    cv2 = import_cv2()
    values = _decode(data, cv2.IMREAD_UNCHANGED)
    if values.ndim != 2:
        raise Unreadable(f"has {values.shape[2]} channels; a label map has one, of class indices")
    few_bits = GREY_STEPS.get(head[24], 1) if head.startswith(PNG_SIGNATURE) else 1
    return values if few_bits == 1 else values // np.uint8(few_bits)


def read_npy(path: str | Path) -> Array:
    """The array of an ``.npy`` file, never unpickling.

    Raises:
        Unreadable: the file is absent, damaged or holds no numbers.
    """
    try:
        values: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise Unreadable(f"not a readable .npy file ({error})") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf" or values.ndim not in (2, 3):
        raise Unreadable("holds no numbers of shape (H, W) or (H, W, C)")
    return values


def _bytes(path: str | Path) -> Array:
    """The file's bytes, whole as far as its end marker tells: a decoder may fill up what is missing in silence."""
    try:
        data = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise Unreadable("there is no such file") from None
    except OSError as error:
        raise Unreadable(f"cannot be opened ({error.strerror})") from None
    if not data.size:
        raise Unreadable("is empty")
    head = data[:8].tobytes()
    for signature, end in END_MARKERS.items():
        if head.startswith(signature) and end not in data[-TAIL:].tobytes():
            raise Unreadable("is truncated: its end marker is not there")
    return data


def _decode(data: Array, flags: int) -> Array:
    picture: Array | None = import_cv2().imdecode(data, flags)
    if picture is None:
        raise Unreadable("is damaged, or no picture")
    return picture


def _palette_indices(data: Array) -> Array:
    try:
        with Image.open(BytesIO(data.tobytes())) as image:
            return np.array(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise Unreadable(f"is damaged ({error})") from None


@cache
def import_cv2() -> Any:
    """OpenCV without threads of its own: loader workers are processes, and its thread pool does not survive a fork."""
    import cv2

    cv2.setNumThreads(0)
    return cv2


class Pictures(Mapping[str, Tensor | None]):
    """The modalities of a sample, resized when they are asked for, so that augmentation can start from what was read.

    Args:
        native: Modality -> values as they were read, or None.
        transform: Knows the size and each modality's role.
    """

    def __init__(self, native: Mapping[str, Array | None], transform: JointTransform) -> None:
        self.native = native
        self._transform = transform

    @property
    def file_sizes(self) -> dict[str, tuple[int, int]]:
        """Modality -> (H, W) as it was read; for surveys."""
        sizes = ((name, picture.shape[:2]) for name, picture in self.native.items() if picture is not None)
        return {name: (height, width) for name, (height, width) in sizes}

    def __getitem__(self, name: str) -> Tensor | None:
        picture = self.native[name]
        return None if picture is None else self._transform.fit(name, picture)

    def __iter__(self) -> Iterator[str]:
        return iter(self.native)

    def __len__(self) -> int:
        return len(self.native)


class ImageDataset:
    """Samples whose modalities are pictures and whose targets are label maps, read when asked for.

    Inputs have the size ``size``. A label map comes in its own size, in which predictions are judged; `augment`, called
    in training, brings it to ``size`` too.

    Args:
        items: The samples.
        modalities: Columns; each of shape (C, *size).
        readers: Modality -> reader.
        read_label: Reader of label maps.
        num_classes: Labels are 0 to ``num_classes`` - 1, or void 255.
        size: (H, W) of every input.
        roles: Modality -> role; see `robustmm.JointTransform`.
        augmentation: For training; None means that inputs and label are resized alone.
        on_unreadable: ``error`` stops; ``missing`` counts a modality that cannot be read as absent. A label that cannot
            be read is always an error.
    """

    def __init__(
        self,
        items: Sequence[Item],
        modalities: Sequence[Modality],
        readers: Mapping[str, Reader],
        read_label: Reader,
        *,
        num_classes: int,
        size: tuple[int, int],
        roles: Mapping[str, Role],
        augmentation: Augmentation | None = None,
        on_unreadable: Literal["error", "missing"] = "error",
    ) -> None:
        self.items = tuple(items)
        self.ids = tuple(item.id for item in items)
        self.channels = {modality.name: modality.shape[0] for modality in modalities}
        self.readers = dict(readers)
        self.read_label = read_label
        self.num_classes = num_classes
        self.on_unreadable = on_unreadable
        marks = {modality.name: modality.scaling.invalid for modality in modalities}
        invalid = {name: value for name, value in marks.items() if value is not None}
        self._transform = JointTransform(augmentation or Augmentation(), size, roles, invalid)
        self._still = JointTransform(Augmentation(), size, roles)
        self._warned: set[str] = set()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int, /) -> Sample:
        native = {name: self._picture(index, name) for name in self.channels}
        if all(picture is None for picture in native.values()):
            raise DataError(
                f"sample '{self.ids[index]}' has nothing that can be read of {', '.join(self.channels)}; leave it out, "
                "or choose data.modalities so that every sample has one"
            )
        return {"inputs": Pictures(native, self._transform), "target": self.target(index), "id": self.ids[index]}

    def target(self, index: int) -> Tensor:
        """The label map alone, (H, W) int64 in its own size.

        Raises:
            DataError: the file cannot be read, or holds a label that is neither a class nor void.
        """
        place = self.items[index].label
        try:
            label = self.read_label(place)
        except Unreadable as error:
            raise DataError(
                f"{place}: {error}; every sample needs its label map, mend the file or leave it out"
            ) from None
        wrong = (label >= self.num_classes) & (label != VOID) | (label < 0)
        if wrong.any():
            raise DataError(
                f"{place}: label {int(label[wrong][0])} is not a class; accepted are 0 to {self.num_classes - 1} and "
                f"{VOID} for void; map other values to {VOID}, or name more classes"
            )
        return torch.from_numpy(label.astype(np.int64))

    def augment(self, sample: Sample, generator: torch.Generator) -> Sample:
        """Inputs and label brought to one size, with the random changes of training."""
        return self._transform(_as_read(sample), generator)

    def at_training_size(self, sample: Sample) -> Sample:
        """Inputs and label brought to the size of training, without random changes."""
        return self._still(_as_read(sample), torch.Generator())

    def only(self, names: Sequence[str]) -> ImageDataset:
        """The same samples, of which only these modalities are read."""
        chosen = copy(self)
        chosen.channels = {name: self.channels[name] for name in names}
        return chosen

    @property
    def unreadable_cells(self) -> list[str]:
        """What counts as absent because it cannot be read, one text each; reads every file."""
        if self.on_unreadable == "error":
            return []
        problems = (self._try(index, name)[1] for index in range(len(self)) for name in self.channels)
        return [problem for problem in problems if problem]

    def _picture(self, index: int, name: str) -> Array | None:
        picture, problem = self._try(index, name)
        if not problem:
            return picture
        if self.on_unreadable == "error":
            raise DataError(f"{problem}; {WAY_OUT}")
        if problem not in self._warned:
            self._warned.add(problem)
            _log.warning("%s; it counts as absent", problem)
        return None

    def _try(self, index: int, name: str) -> tuple[Array | None, str]:
        """What was read, None where nothing is there, and what is wrong with it."""
        place = self.items[index].places.get(name)
        if place is None:
            return None, ""
        try:
            picture = self.readers[name](place)
        except Unreadable as error:
            return None, f"{place} ({name}): {error}"
        channels = 1 if picture.ndim == 2 else picture.shape[2]
        if picture.ndim not in (2, 3) or channels != self.channels[name] or not picture.size:
            return None, f"{place} ({name}): has shape {picture.shape}, expected {self.channels[name]} channels"
        return picture, ""


def _as_read(sample: Sample) -> Sample:
    """The sample with its pictures in the size in which they were read, where that is known."""
    inputs = sample["inputs"]
    if not isinstance(inputs, Pictures):
        return sample
    native = {name: None if picture is None else _as_tensor(picture) for name, picture in inputs.native.items()}
    return {"inputs": native, "target": sample["target"], "id": sample["id"]}


def _as_tensor(picture: Array) -> Tensor:
    """(H, W) or (H, W, C) as (C, H, W), a view; 8 bits stay, everything else becomes float32."""
    kept = picture if picture.dtype == np.uint8 else picture.astype(np.float32, copy=False)
    value = torch.from_numpy(kept)
    return value.unsqueeze(0) if value.ndim == 2 else value.permute(2, 0, 1)


def list_files(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Files of a folder by stem, sorted; empty where there is no such folder.

    Raises:
        DataError: two files have one stem.
    """
    found: dict[str, Path] = {}
    if not folder.is_dir():
        return found
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if path.suffix.lower() not in suffixes or entry.name.startswith("."):
            continue
        if path.stem in found:
            raise DataError(f"{folder}: {found[path.stem].name} and {path.name} are files of one sample; keep one")
        found[path.stem] = path
    return found
