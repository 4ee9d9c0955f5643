"""Compression of pictures."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from robustmm import Component, Modality, Options, hookimpl

from ._levels import HENDRYCKS, Qualities
from ._pictures import UnitRange

#: Channels of a picture that the format knows: grey, or red, green and blue.
CHANNELS = (1, 3)


class JpegOptions(Options):
    """Options of JPEG."""

    levels: Qualities = Field((25, 18, 15, 10, 7), description="quality of the compression in each severity")


class Jpeg(UnitRange):
    """Values as 8 bits, compressed by Pillow and read back."""

    @classmethod
    def reason_against(cls, modality: Modality) -> str | None:
        """Other numbers of channels, and measurements such as depth, which 8 bits would destroy by themselves."""
        if modality.shape[0] not in CHANNELS:
            return f"it needs 1 or 3 channels, not {modality.shape[0]}"
        if modality.scaling.invalid is not None:
            return "it needs a picture, not a map of measurements with a value for what was not measured"
        return None

    def unit_at_level(self, unit: Tensor, level: float, generator: torch.Generator, valid: Tensor) -> Tensor:
        """See `UnitRange.unit_at_level`."""
        pixels = (unit.clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy()  # (H, W, D)
        return torch.from_numpy(compressed(pixels, int(level))).movedim(-1, 0).float() / 255


def compressed(
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], quality: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(H, W, 1) or (H, W, 3) uint8 through JPEG."""
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file)).reshape(pixels.shape)


@hookimpl
def robustmm_register_corruptions(register: Callable[[Component], None]) -> None:
    """Offer JPEG."""
    register(
        Component(
            "jpeg",
            Jpeg,
            JpegOptions,
            "Lossy compression of 8-bit pictures with one or three channels.",
            HENDRYCKS,
            fidelity="part",
            suits=frozenset({"image"}),
        )
    )
