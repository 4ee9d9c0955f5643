"""From what a user holds (array, tensor, picture, path) to a modality's raw values in the shape of the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from robustmm.data.transforms import Augmentation, JointTransform
from robustmm.errors import DataError, RobustmmError, did_you_mean
from robustmm.types import Modality
from robustmm.use.files import has_colours, picture_array, read_file, read_numbers, why_arrays

Array = NDArray[Any]
#: Where the channels of a map stand; ``auto`` looks which axis is as long as the modality has channels.
ChannelOrder = Literal["auto", "first", "last"]
#: Whole numbers that a picture may hold where they stand for shares of their largest one.
SHARED = (np.uint8, np.uint16)


class Value(NamedTuple):
    """A modality of one sample.

    Args:
        tensor: Of the modality's shape, raw units; 8-bit pictures stay 8-bit.
        size: (H, W) in which a map was given; () where the modality is no map.
    """

    tensor: Tensor
    size: tuple[int, ...]


def refuse_order(order: str) -> None:
    """Raise RobustmmError for a word that is no `ChannelOrder`."""
    known = get_args(ChannelOrder)
    if order not in known:
        raise RobustmmError(f"channels '{order}'{did_you_mean(str(order), known)} (accepted: {', '.join(known)})")


def read_value(
    given: Any, modality: Modality, size: tuple[int, int] | None, *, order: ChannelOrder = "auto", place: str = ""
) -> Value:
    """Bring a value to the modality's shape.

    Args:
        given: Array, tensor, picture, path of a file, or of a vector its numbers, also in a string.
        modality: What the model expects.
        size: (H, W) to which maps are brought; None leaves them.
        order: Of the axes of arrays.
        place: Of messages: the sample's name, where there are several.

    Raises:
        DataError: the file cannot be read, or the values have another type, number of channels or shape, or are not
            finite.
    """
    place = f"{place}{modality.name}"
    source = f"{place}: {given}" if isinstance(given, str | Path) else place
    if isinstance(given, str | Path):
        given = _from_text(given, modality, place)
    if isinstance(given, Image.Image):
        _expect_picture(modality, place)
        _expect_measured(given, modality, source)
        values = picture_array(given, modality.shape[0], place)
        order = "last"
    else:
        values = _numbers(given, place)
    if len(modality.shape) != 3:
        return Value(_exact(_finite(values, modality, place), modality, place), ())
    picture = _channels_last(values, modality, order, place)
    return _as_map(_finite(picture, modality, place), modality, size, place)


def _from_text(given: str | Path, modality: Modality, place: str) -> Array | Image.Image:
    """A file's content, or the numbers that a vector's text is."""
    path = Path(given)
    if modality.kind == "vector" and not path.suffix[1:].isalpha():  # "0.5 1.25" has the suffix ".25"
        return read_numbers(str(given), place)
    return read_file(path, modality, place)


def _expect_picture(modality: Modality, place: str) -> None:
    if modality.kind != "image" or modality.reading.prepared:
        raise DataError(
            f"{place}: got a picture; expected a {modality.kind} of shape {modality.shape}{why_arrays(modality)}"
        )


def _expect_measured(image: Image.Image, modality: Modality, place: str) -> None:
    """Raise DataError for colours where one channel is measured: their grey is none of its values."""
    measured = modality.unit or modality.scaling.invalid is not None
    if modality.shape[0] == 1 and measured and has_colours(image):
        unit = f" of values in {modality.unit}" if modality.unit else " of measured values"
        raise DataError(
            f"{place}: a picture of {len(image.getbands())} channels ({image.mode}) with colours; expected "
            f"one channel{unit}: a picture of 8 or 16 bits, or an array (H, W)"
        )


def _numbers(given: Any, place: str) -> Array:
    """An array of whole or floating point numbers."""
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        given = given.float().numpy() if given.dtype in (torch.bfloat16, torch.float16) else given.numpy()
    try:
        values: Array = np.asarray(given)
    except ValueError as error:
        raise DataError(f"{place}: not an array of numbers ({error})") from None
    if values.dtype.kind not in "uif":
        raise DataError(
            f"{place}: values of type {values.dtype}; expected whole or floating point numbers, a picture or a path"
        )
    return values


def _finite(values: Array, modality: Modality, place: str) -> Array:
    """The values; those that are not finite become the modality's "not measured", where it has one."""
    if values.dtype.kind != "f":
        return values
    wrong = ~np.isfinite(values)
    if not wrong.any():
        return values
    if modality.scaling.invalid is None:
        found = "NaN" if np.isnan(values).any() else "infinite values"
        raise DataError(
            f"{place}: holds {found} ({int(wrong.sum())} of {values.size} values); leave the modality out of the "
            f"sample, or replace them"
        )
    return np.where(wrong, values.dtype.type(modality.scaling.invalid), values)


def _exact(values: Array, modality: Modality, place: str) -> Tensor:
    if values.shape != modality.shape:
        turned = values.ndim == 2 and values.shape[::-1] == modality.shape
        hint = "; transpose it" if turned else ""
        what = "features" if modality.kind == "vector" else "features x steps"
        raise DataError(f"{place}: has shape {values.shape}; expected {modality.shape} ({what}){hint}")
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


def _channels_last(values: Array, modality: Modality, order: ChannelOrder, place: str) -> Array:
    """(H, W, C), or (H, W) of one channel."""
    channels = modality.shape[0]
    if values.ndim == 2 and channels == 1:
        return values
    if values.ndim != 3 or not values.size:
        raise DataError(
            f"{place}: has shape {values.shape}; expected one map of shape ({channels}, H, W) or (H, W, {channels})"
        )
    first = _channels_first(values.shape, modality, order, place)
    picture = np.moveaxis(values, 0, -1) if first else values
    return picture[..., 0] if channels == 1 else picture


def _channels_first(shape: tuple[int, ...], modality: Modality, order: ChannelOrder, place: str) -> bool:
    channels = modality.shape[0]
    may_be_first, may_be_last = shape[0] == channels, shape[2] == channels
    if order != "auto":
        if not (may_be_first if order == "first" else may_be_last):
            raise DataError(f"{place}: has shape {shape} with channels {order}; expected {channels} of them")
        return order == "first"
    if not (may_be_first or may_be_last):
        raise DataError(f"{place}: has shape {shape}; expected {channels} channels on the first or the last axis")
    if may_be_first and may_be_last and shape != modality.shape:
        raise DataError(
            f"{place}: has shape {shape}, of which the first and the last axis may be the {channels} channels; "
            f"say channels='first' or channels='last'"
        )
    return may_be_first


def _as_map(picture: Array, modality: Modality, size: tuple[int, int] | None, place: str) -> Value:
    """A picture (H, W) or (H, W, C) as (C, *size), with the size in which it was given."""
    given: tuple[int, int] = (picture.shape[0], picture.shape[1])
    if modality.kind == "spectrogram" and given != modality.shape[1:]:
        raise DataError(f"{place}: has shape {given}; expected {modality.shape[1:]} (bands x frames)")
    if modality.reading.pixels == "share" and picture.dtype.kind in "ui":
        picture = _shares(picture, place)
    wanted = size or given
    how = "nearest" if modality.scaling.invalid is not None else modality.reading.resize
    if how == "bilinear" and wanted != given:
        return Value(_smoothed(_as_tensor(picture), wanted), given)
    role: Literal["exact", "continuous"] = "exact" if how == "nearest" else "continuous"
    fitted = JointTransform(Augmentation(), wanted, {modality.name: role}).fit(modality.name, _resizable(picture))
    return Value(fitted, given)


def _shares(picture: Array, place: str) -> Array:
    if picture.dtype not in SHARED:
        raise DataError(
            f"{place}: whole numbers of type {picture.dtype}; expected 8 or 16 bits (uint8, uint16), of which shares "
            f"of the largest are taken, or floating point numbers in [0, 1]"
        )
    return picture.astype(np.float32) / np.float32(np.iinfo(picture.dtype).max)


def _resizable(picture: Array) -> Array:
    """8 and 16 bits as they are, everything else as float32: what OpenCV resizes."""
    return np.ascontiguousarray(picture if picture.dtype in SHARED else picture.astype(np.float32))


def _as_tensor(picture: Array) -> Tensor:
    value = torch.from_numpy(np.ascontiguousarray(picture, np.float32))
    return value[None] if value.ndim == 2 else value.permute(2, 0, 1)


def _smoothed(image: Tensor, size: Sequence[int]) -> Tensor:
    return torch.nn.functional.interpolate(
        image[None], size=tuple(size), mode="bilinear", align_corners=False, antialias=True
    )[0]
