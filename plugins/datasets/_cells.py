"""What a cell of a manifest means: numbers written in place, or a file that is an image, an array or a recording."""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robustmm import DataError, LogMel, read_wav

from ._files import Array

Kind = Literal["vector", "sequence", "image", "spectrogram"]
ARRAY_SUFFIXES = (".npy", ".npz")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
#: Axes of one sample of each kind, without the batch.
AXES: dict[Kind, int] = {"vector": 1, "sequence": 2, "image": 3, "spectrogram": 3}
#: Pillow's names for one channel of 16 bits; "I" is what older versions call a 16-bit PNG.
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")


class Unreadable(Exception):
    """A cell's content cannot be used; the text says why."""


@dataclass(frozen=True)
class CellReader:
    """Reads the cells of one modality.

    Args:
        kind: Of the modality.
        size: (H, W) of an image, to which it is resized; (bands, frames) of a spectrogram; empty otherwise.
        channels: Of an image file: 1 (grey, 8 or 16 bits) or 3 (colour).
        spectrogram: How recordings become spectrograms.
        folder: What relative paths start from.
    """

    kind: Kind
    size: tuple[int, ...]
    channels: int
    spectrogram: LogMel
    folder: Path

    def path(self, cell: str) -> Path | None:
        """The file that a cell names; None for numbers in place."""
        if self.kind == "vector" and not cell.lower().endswith(ARRAY_SUFFIXES):
            return None
        return self.folder / cell

    def __call__(self, cell: str) -> Tensor:
        """A cell's value: (D,), (D, T) or (D, H, W), float32.

        Raises:
            Unreadable: the file is absent, damaged, of another type or shape, or holds values that are not finite.
        """
        path = self.path(cell)
        value = read_numbers(cell) if path is None else self._read_file(path)
        if value.ndim != AXES[self.kind]:
            raise Unreadable(f"has shape {tuple(value.shape)}; a {self.kind} has {AXES[self.kind]} axes")
        if not torch.isfinite(value).all():
            raise Unreadable("holds values that are not finite")
        return value

    def _read_file(self, path: Path) -> Tensor:
        if not path.is_file():
            raise Unreadable("there is no such file")
        suffix = path.suffix.lower()
        if suffix in ARRAY_SUFFIXES:
            value = read_array(path)
            if AXES[self.kind] == 3 and value.ndim == 2:
                value = value.unsqueeze(0)  # (H, W) -> (1, H, W)
            return resized(value, self.size) if self.kind == "image" and value.ndim == 3 else value
        if self.kind == "image" and suffix in IMAGE_SUFFIXES:
            return resized(read_image(path, self.channels), self.size)
        if self.kind == "spectrogram" and suffix == ".wav":
            return read_spectrogram(path, self.spectrogram)
        raise Unreadable(f"a {self.kind} is read from {', '.join(self.suffixes)}, not from '{suffix}'")

    @property
    def suffixes(self) -> tuple[str, ...]:
        """File types of this kind."""
        extra = {"image": IMAGE_SUFFIXES, "spectrogram": (".wav",)}
        return (*ARRAY_SUFFIXES, *extra.get(self.kind, ()))


def read_numbers(cell: str) -> Tensor:
    """Numbers parted by spaces, commas or semicolons, (D,).

    Raises:
        Unreadable: one of them is no number.
    """
    try:
        return torch.tensor([float(word) for word in cell.replace(",", " ").replace(";", " ").split()])
    except ValueError as error:
        raise Unreadable(
            f"{error}; expected numbers such as 0.1 0.2 0.3, or a path that ends in .npy or .npz"
        ) from None


def read_quantities(cell: str, count: int) -> Tensor:
    """Target quantities of regression, (T,) float32, or () where there is one.

    Raises:
        Unreadable: the cell does not hold as many finite numbers.
    """
    words = cell.replace(",", " ").replace(";", " ").split()
    try:
        values = torch.tensor([float(word) for word in words])
    except ValueError as error:
        raise Unreadable(f"{error}; expected {_numbers(count)}") from None
    if len(values) != count or not values.isfinite().all():
        found = _numbers(len(values)) if values.isfinite().all() else "values that are not finite"
        raise Unreadable(f"holds {found if words else 'nothing'}; expected {_numbers(count)}")
    return values if count > 1 else values[0]


def _numbers(count: int) -> str:
    return "one number" if count == 1 else f"{count} numbers"


def read_array(path: Path) -> Tensor:
    """The array of an ``.npy`` file, or the only one of an ``.npz`` file, never unpickling.

    Raises:
        Unreadable: the file is damaged, holds objects or text, or several arrays.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                if len(loaded.files) != 1:
                    raise Unreadable(f"holds {len(loaded.files)} arrays; an .npz file must hold one")
                loaded = loaded[loaded.files[0]]
        array: Array = loaded
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise Unreadable(f"not a readable array ({error})") from None
    if array.dtype.kind not in "biuf":
        raise Unreadable(f"holds values of type {array.dtype}; expected numbers")
    return torch.from_numpy(array.astype(np.float32))


def read_image(path: Path, channels: int) -> Tensor:
    """An image in [0, 1], (channels, H, W): 8 bits divided by 255, 16 bits by 65535; floating point TIFFs as they are.

    Raises:
        Unreadable: the file is no image or damaged.
    """
    with _open_image(path) as image:
        if channels == 3:
            pixels: Array = np.asarray(image.convert("RGB"), np.float32) / 255
        elif image.mode in SIXTEEN_BITS:
            pixels = np.asarray(image, np.float32)[:, :, None] / 65535
        elif image.mode == "F":
            pixels = np.asarray(image, np.float32)[:, :, None]
        else:
            pixels = np.asarray(image.convert("L"), np.float32)[:, :, None] / 255
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _open_image(path: Path) -> Image.Image:
    """The image, decoded."""
    try:
        with Image.open(path) as image:
            image.load()
            return image.copy()
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise Unreadable(f"not a readable image ({error})") from None


def read_spectrogram(path: Path, transform: LogMel) -> Tensor:
    """A WAV file's log-mel spectrogram, (1, bands, frames).

    Raises:
        Unreadable: the file is no PCM WAV file.
    """
    try:
        with path.open("rb") as file:
            return transform(*read_wav(file, path.name))
    except (OSError, DataError) as error:
        raise Unreadable(str(error)) from None


def resized(image: Tensor, size: tuple[int, ...]) -> Tensor:
    """(D, H, W) brought to (D, *size), smoothed where it shrinks."""
    if image.shape[1:] == size:
        return image
    return torch.nn.functional.interpolate(
        image.unsqueeze(0), size=size, mode="bilinear", align_corners=False, antialias=True
    )[0]


def read_label_map(cell: str, folder: Path, size: tuple[int, ...], num_classes: int, ignore: int) -> Tensor:
    """A label map, (H, W) int64, brought to ``size`` without mixing labels.

    The file holds class indices: a PNG or another lossless image of one channel, or an array (H, W).

    Raises:
        Unreadable: the cell is empty, or the file is absent, damaged, of another type, or holds a label of no class.
    """
    if not cell:
        raise Unreadable("the cell is empty")
    path = folder / cell
    if not path.is_file():
        raise Unreadable("there is no such file")
    if path.suffix.lower() in ARRAY_SUFFIXES:
        labels = read_array(path).long()
    else:
        with _open_image(path) as image:
            if image.mode not in ("1", "L", "P", *SIXTEEN_BITS):
                raise Unreadable(f"is an image of mode {image.mode}; a label map has one channel of class indices")
            labels = torch.from_numpy(np.array(image, np.int64))
    if labels.ndim != 2:
        raise Unreadable(f"has shape {tuple(labels.shape)}; a label map has two axes")
    wrong = (labels != ignore) & ((labels < 0) | (labels >= num_classes))
    if wrong.any():
        raise Unreadable(f"holds label {int(labels[wrong][0])}; expected 0 to {num_classes - 1}, or {ignore} to ignore")
    shrunk = torch.nn.functional.interpolate(labels[None, None].double(), size=size, mode="nearest-exact")
    return shrunk[0, 0].long()
