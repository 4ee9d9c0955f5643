"""Files of a modality: pictures, arrays, recordings and lists of numbers, read as data sets read them."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robustmm.audio import read_wav
from robustmm.errors import DataError
from robustmm.types import Modality

Array = NDArray[Any]
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
ARRAYS = (".npy", ".npz")
#: First bytes of an .npy file, and of an .npz file with or without arrays.
MAGIC = (b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06")
RECORDINGS = (".wav",)
TABLES = (".csv", ".txt")
#: Pillow's names for one channel of 16 bits; "I" is what older versions call a 16-bit PNG.
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")


def suffixes_of(modality: Modality) -> tuple[str, ...]:
    """File types that a modality is read from."""
    extra = {"vector": TABLES, "sequence": (), "image": PICTURES, "spectrogram": RECORDINGS}
    return ARRAYS if modality.reading.prepared else (*ARRAYS, *extra[modality.kind])


def read_file(path: Path, modality: Modality, place: str) -> Array | Image.Image:
    """What a file holds: a picture, or an array of any layout. ``place`` begins every message.

    Raises:
        DataError: it is absent, damaged, or of a type that is not of this modality.
    """
    place = f"{place}: {path}"
    if not path.is_file():
        raise DataError(f"{place}: there is no such file")
    suffix = path.suffix.lower()
    if suffix not in suffixes_of(modality):
        raise DataError(
            f"{place}: a modality of kind {modality.kind} is read from "
            f"{', '.join(suffixes_of(modality))}, not from '{suffix}'{why_arrays(modality)}"
        )
    if suffix in ARRAYS:
        return read_array(path, place)
    if suffix in PICTURES:
        return read_picture(path, place)
    if suffix in RECORDINGS:
        return read_recording(path, modality, place)
    return read_table(path, place)


def why_arrays(modality: Modality) -> str:
    """Why pictures or recordings of a modality are not read; empty where they are."""
    prepared = modality.reading.prepared
    return f": the data set makes other values of files ({prepared}); give these as an array" if prepared else ""


def read_array(path: Path, place: str) -> Array:
    """The array of an ``.npy`` file, or the only one of an ``.npz`` file, never unpickling."""
    try:
        with path.open("rb") as file:
            if not file.read(len(MAGIC[0])).startswith(MAGIC):
                raise DataError(f"{place}: is no {path.suffix.lower()} file")
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                if len(loaded.files) != 1:
                    raise DataError(f"{place}: holds {len(loaded.files)} arrays; an .npz file must hold one")
                loaded = loaded[loaded.files[0]]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = "it holds Python objects, not numbers" if "allow_pickle" in str(error) else error
        raise DataError(f"{place}: not a readable array ({reason})") from None
    array: Array = loaded
    return array


def read_picture(path: Path, place: str) -> Image.Image:
    """The decoded picture."""
    try:
        with Image.open(path) as image:
            image.load()
            return image.copy()
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"{place}: not a readable picture ({error})") from None


def read_recording(path: Path, modality: Modality, place: str) -> Array:
    """The spectrogram of a WAV file, (1, bands, frames), by the settings of training."""
    if modality.reading.recording is None:
        raise DataError(
            f"{place}: the data set does not say how recordings become spectrograms; give the "
            f"spectrogram itself as .npy, of shape {modality.shape}"
        )
    try:
        with path.open("rb") as file:
            spectrogram: Array = modality.reading.recording(*read_wav(file, path.name)).numpy()
    except (OSError, DataError) as error:
        raise DataError(f"{place}: {error}") from None
    return spectrogram


def read_table(path: Path, place: str) -> Array:
    """The numbers of a text file, over however many lines, (D,)."""
    try:
        return read_numbers(path.read_text(encoding="utf-8-sig"), place)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{place}: not a readable text ({error})") from None


def read_numbers(text: str, place: str) -> Array:
    """Numbers parted by spaces, commas or semicolons, (D,)."""
    try:
        return np.array([float(word) for word in text.replace(",", " ").replace(";", " ").split()], np.float32)
    except ValueError as error:
        raise DataError(f"{place}: {error}; expected numbers such as 0.1 0.2 0.3, or the path of a file") from None


def has_colours(image: Image.Image) -> bool:
    """Whether the colour channels of a picture differ; a grey picture that is kept with three channels has none."""
    if image.mode in ("1", "L", "LA", "La", "F", *SIXTEEN_BITS):
        return False
    red, green, blue = np.moveaxis(np.array(image.convert("RGB")), -1, 0)
    return not (np.array_equal(red, green) and np.array_equal(red, blue))


def picture_array(image: Image.Image, channels: int, place: str) -> Array:
    """Pixels of a picture in their own type, (H, W) or (H, W, C).

    Three channels are red, green and blue, whatever the picture has; one channel is the picture's values if it has one,
    else its grey. Floating point and 16-bit pictures keep their values.

    Raises:
        DataError: a picture has neither as many channels nor can be turned into that.
    """
    if channels == 3:
        return np.array(image.convert("RGB"))
    if channels != 1:
        raise DataError(f"{place}: pictures have 1 or 3 channels; {channels} are given as an array (H, W, C)")
    if image.mode in SIXTEEN_BITS:
        return np.array(image).astype(np.uint16)
    if image.mode == "F":
        return np.array(image)
    return np.array(image.convert("L"))
