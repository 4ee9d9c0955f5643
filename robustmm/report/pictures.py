"""Inputs, label maps and errors as pictures: arrays (H, W, 3) of 8-bit red, green and blue."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from robustmm.metrics.confusion import confusion_matrix
from robustmm.metrics.segmentation import mean_iou
from robustmm.report.palette import INVALID, RIGHT, VOID_STRIPES, WRONG, Bytes, value_colours
from robustmm.types import VOID, Modality

Ints = NDArray[np.int64]
#: Percent of the valid values that may lie below the first and above the last colour.
BEYOND = 2.0
#: Width of a stripe where there is no label, in pixels of the tile.
STRIPE = 6
#: Units that tell the range of colours rather than what is measured.
COLOUR_UNITS = {"0-255": 1.0, "0-1": 255.0}


@dataclass(frozen=True)
class Shown:
    """An input as a picture.

    Args:
        pixels: (H, W, 3).
        note: How values became colours; empty for a colour picture as it is.
        mapped: Whether values were given colours of a scale.
    """

    pixels: Bytes
    note: str
    mapped: bool


def show_input(modality: Modality, value: Tensor) -> Shown:
    """A modality's raw values as a picture.

    Three channels are colours: 8-bit values, or values whose unit says so, as they are, others from one robust range
    over all channels. One channel gets a colour scale over its robust range. Any other number of channels is averaged
    to one. Values that are not measured, or not finite, have a tone of their own.

    Args:
        modality: Whose unit and `Scaling.invalid` count.
        value: (D, H, W), as the data set gave it.
    """
    raw = value.double().numpy()
    valid = np.isfinite(raw)
    if modality.scaling.invalid is not None:
        valid &= raw != modality.scaling.invalid
    if len(raw) == 3:
        return _colours(modality, raw, valid, eight_bit=str(value.dtype) == "torch.uint8")
    measured = valid.any(axis=0)
    total = np.where(valid, raw, 0.0).sum(axis=0)
    mean = total / valid.sum(axis=0).clip(min=1)
    low, high = robust_range(mean[measured])
    pixels = value_colours((mean - low) / (high - low))
    pixels[~measured] = INVALID
    unit = "" if modality.unit in COLOUR_UNITS else modality.unit
    words = f"{range_words(low, high)} {unit}".rstrip() if measured.any() else "nothing measured"
    return Shown(pixels, words if len(raw) == 1 else f"mean of {len(raw)} channels, {words}", mapped=True)


def _colours(modality: Modality, raw: NDArray[Any], valid: NDArray[np.bool_], *, eight_bit: bool) -> Shown:
    measured = valid.any(axis=0)
    factor = 1.0 if eight_bit else COLOUR_UNITS.get(modality.unit)
    low, high = (0.0, 255.0 / factor) if factor else robust_range(raw[valid])
    share = (np.where(valid, raw, low) - low) / (high - low)
    pixels = (share.clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0).copy()
    pixels[~measured] = INVALID
    words = range_words(low, high) if measured.any() else "nothing measured"
    return Shown(pixels, "" if factor else words, mapped=False)


def robust_range(values: NDArray[Any]) -> tuple[float, float]:
    """Values of which `BEYOND` percent lie below the first and as many above the second; never one and the same."""
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, [BEYOND, 100 - BEYOND])
    return float(low), float(high if high > low else low + 1.0)


def range_words(low: float, high: float) -> str:
    """Both ends, as exact as three digits of the way between them."""
    decimals = max(0, 2 - math.floor(math.log10(high - low)))
    return f"{low:.{decimals}f} to {high:.{decimals}f}"


def fitting_size(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """The largest (height, width) of a size's shape inside of a box, at least 1 pixel each way."""
    scale = min(box[0] / size[0], box[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize(pixels: Bytes, size: tuple[int, int]) -> Bytes:
    """(H, W, 3) to another (height, width): averaged where it shrinks, in blocks where it grows."""
    shrinks = pixels.shape[0] > size[0] or pixels.shape[1] > size[1]
    how = Image.Resampling.BOX if shrinks else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), how))


def resize_labels(labels: Tensor, size: tuple[int, int]) -> Ints:
    """A map of classes (H, W) to another (height, width) by the nearest pixel: no class is made up."""
    values = labels.numpy().astype(np.int64)
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, values.shape, strict=True)
    )
    resized: Ints = values[rows][:, columns]
    return resized


def show_classes(labels: Ints, colours: Bytes) -> Bytes:
    """Classes (H, W) in their colours; stripes where there is none, which is `VOID` or no class at all."""
    known = (labels >= 0) & (labels < len(colours)) & (labels != VOID)
    return np.where(known[..., None], colours[np.where(known, labels, 0)], stripes(labels.shape))


def show_errors(prediction: Ints, target: Ints) -> Bytes:
    """Where a prediction (H, W) is right and where it is wrong; stripes where there is no label."""
    right = np.array(RIGHT, dtype=np.uint8)
    judged = np.where((prediction == target)[..., None], right, np.array(WRONG, dtype=np.uint8))
    return np.where((target == VOID)[..., None], stripes(target.shape), judged)


def stripes(size: tuple[int, ...]) -> Bytes:
    """Slanted stripes, (H, W, 3)."""
    rows, columns = np.indices(size)
    tones = np.array(VOID_STRIPES, dtype=np.uint8)
    result: Bytes = tones[(rows + columns) // STRIPE % 2]
    return result


def picture_score(prediction: Tensor, target: Tensor, num_classes: int) -> float | None:
    """Mean IoU over the classes that the picture's label has, 0..1; None where it is all void."""
    confusion = confusion_matrix(prediction, target, num_classes, ignore_index=VOID)
    return mean_iou(confusion, absent="skip")
