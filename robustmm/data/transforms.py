"""Joint augmentation of pictures: one geometry for every modality and the label, photometric changes for colour alone.

Zooming is a crop from the picture as it was read, resized once, so that a high-resolution file keeps its detail and
nothing larger than the result is ever made. Turning and the photometric changes are albumentations', which is imported
when it is first needed. Every draw follows from the generator that is handed in.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from robustmm.errors import DataError
from robustmm.registry import Options
from robustmm.seeding import derive_seed
from robustmm.types import Sample

Array = NDArray[Any]
#: How a modality is resized, and whether its colours may change: ``colour`` is smoothed and takes photometric changes,
#: ``continuous`` is smoothed, ``exact`` keeps its values (nearest neighbour), as depth with holes needs.
Role = Literal["colour", "continuous", "exact"]
_SEEDS = 2**32


class Augmentation(Options):
    """What is changed at random in training; as it stands, nothing.

    Geometry is drawn once per sample, photometric changes once per modality of role ``colour``.

    Args:
        rescale: The picture is magnified by a factor drawn from [low, high] and a part of the data set's ``size`` is
            cut out at random; where the magnified picture is not larger than ``size`` along both axes, the whole is
            resized instead, as ESANet does.
        rescale_from: What a factor of 1 means: the picture brought to ``size``, or the picture as it is in its file.
        flip: Probability of mirroring left and right.
        vertical_flip: Probability of mirroring top and bottom.
        rotate: Largest angle in degrees to either side; what comes in from outside is 0, or "not measured" where the
            modality has a value that says so, and void in the label.
        hue: The hue is multiplied by a factor from [1 - hue, 1 + hue]; three channels only.
        saturation: Likewise.
        value: Added to the value (three channels) or the intensity (otherwise): from [-value, value], in levels of 255.
        brightness: Added: from [-brightness, brightness], as a share of the full scale.
        contrast: Multiplied by a factor from [1 - contrast, 1 + contrast], so that 0 stays 0.
        noise: Largest deviation of Gaussian noise, as a share of the full scale; drawn from [0, noise].
        blur: Probability of a Gaussian blur of 0.5 to 1.5 pixels.

    The full scale is 255 for 8-bit pictures and the picture's own range otherwise.
    """

    rescale: tuple[float, float] | None = Field(None, description="[low, high] of a random zoom with a random crop")
    rescale_from: Literal["size", "native"] = Field("size", description="zoom 1 is the picture at size, or as stored")
    flip: float = Field(0.0, ge=0, le=1, description="probability of mirroring left and right")
    vertical_flip: float = Field(0.0, ge=0, le=1, description="probability of mirroring top and bottom")
    rotate: float = Field(0.0, ge=0, le=180, description="largest angle in degrees, to either side")
    hue: float = Field(0.0, ge=0, le=1, description="hue times a factor in 1 +- hue; colour only")
    saturation: float = Field(0.0, ge=0, le=1, description="saturation times a factor in 1 +- saturation; colour only")
    value: float = Field(0.0, ge=0, le=255, description="added to the value, in levels of 255; colour only")
    brightness: float = Field(0.0, ge=0, le=1, description="added, as a share of the full scale; colour only")
    contrast: float = Field(0.0, ge=0, le=1, description="times a factor in 1 +- contrast; colour only")
    noise: float = Field(0.0, ge=0, le=1, description="largest deviation of noise, share of full scale; colour only")
    blur: float = Field(0.0, ge=0, le=1, description="probability of a slight blur; colour only")

    @model_validator(mode="after")
    def _rescale_is_a_range(self) -> Self:
        if self.rescale is not None and not 0 < self.rescale[0] <= self.rescale[1]:
            raise ValueError("rescale is [low, high] with 0 < low <= high, such as [1.0, 1.4]")
        return self


@dataclass(frozen=True)
class Window:
    """A part of a picture, as shares of its height and width, so that it fits pictures of any resolution."""

    top: float = 0.0
    left: float = 0.0
    height: float = 1.0
    width: float = 1.0

    def cut(self, picture: Array) -> Array:
        """The part, a view of at least one pixel."""
        rows, columns = picture.shape[:2]
        height, width = max(round(self.height * rows), 1), max(round(self.width * columns), 1)
        top = min(round(self.top * rows), rows - height)
        left = min(round(self.left * columns), columns - width)
        return picture[top : top + height, left : left + width]


class JointTransform:
    """Brings the pictures and the label map of a sample to one size, with the changes that options ask for.

    Args:
        options: What is changed.
        size: (H, W) of every picture and of the label afterwards.
        roles: Modality -> role; other modalities pass unchanged.
        invalid: Modality -> raw value that says "not measured", for those that have one; see `robustmm.Scaling`.
    """

    def __init__(
        self,
        options: Augmentation,
        size: tuple[int, int],
        roles: Mapping[str, Role],
        invalid: Mapping[str, float] | None = None,
    ) -> None:
        self.options = options
        self.size = size
        self.roles = dict(roles)
        self.invalid = {name: value for name, value in (invalid or {}).items() if value != 0}  # 0 is filled in anyway
        self._turn = _turning(options, self.roles)
        self._shade = _shading(options)

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        """A new sample; the given one is not written to.

        Args:
            sample: Pictures (C, h, w), which may differ in size and may be absent, and a label map (h, w) with classes
                below 255 and void 255.
            generator: All draws follow from it; how many modalities are there changes none of the geometry.

        Returns:
            Pictures (C, H, W), uint8 where they were, float32 otherwise, and the label (H, W) int64.
        """
        seed = int(torch.randint(_SEEDS, (), generator=generator))
        label = _label_array(sample)
        window = self._window(label.shape, np.random.default_rng(seed))
        pictures = {
            name: _resize(window.cut(as_array(value)), self.size, self.roles[name])
            for name, value in sample["inputs"].items()
            if value is not None and name in self.roles
        }
        pictures, label = self._turned(pictures, _resize(window.cut(label), self.size, "exact"), seed)
        shaded = {name: self._shaded(name, picture, seed) for name, picture in pictures.items()}
        inputs = {
            name: as_tensor(shaded[name]) if name in shaded else value for name, value in sample["inputs"].items()
        }
        return {"inputs": inputs, "target": torch.from_numpy(label).long(), "id": sample["id"]}

    def fit(self, name: str, picture: Array) -> Tensor:
        """A picture (h, w) or (h, w, C) brought to (C, H, W) without any draw, as in evaluation."""
        return as_tensor(_resize(picture, self.size, self.roles[name]))

    def _window(self, native: tuple[int, ...], draw: np.random.Generator) -> Window:
        """Which part of the picture is shown."""
        if self.options.rescale is None:
            return Window()
        factor = draw.uniform(*self.options.rescale)
        top, left = draw.uniform(size=2)
        height, width = (1.0, 1.0)
        if self.options.rescale_from == "native":
            height, width = self.size[0] / native[0], self.size[1] / native[1]
        height, width = height / factor, width / factor
        if height >= 1 or width >= 1:
            return Window()
        return Window(top * (1 - height), left * (1 - width), height, width)

    def _turned(self, pictures: dict[str, Array], label: Array, seed: int) -> tuple[dict[str, Array], Array]:
        """Mirrored and rotated."""
        if self._turn is None:
            return pictures, label
        self._turn.set_random_seed(seed)
        # Padding is 0 everywhere; one step up, modulo 256, makes 0 mean void in the label.
        turned = self._turn(image=np.ones(self.size, np.uint8), mask=label + np.uint8(1), **_prefixed(pictures))
        outside = turned["image"] == 0
        result = {name: turned[_PREFIX + name] for name in pictures}
        for name in self.invalid.keys() & pictures.keys():
            beyond = outside if result[name].ndim == 2 else outside[..., None]
            result[name] = np.where(beyond, np.float32(self.invalid[name]), result[name])
        return result, turned["mask"] - np.uint8(1)

    def _shaded(self, name: str, picture: Array, seed: int) -> Array:
        """With photometric changes where the role allows them."""
        if self.roles[name] != "colour" or not picture.size:
            return picture
        own = derive_seed(seed, name) % _SEEDS
        unit, low, full = _to_unit(picture)
        unit = _jitter(unit, self.options, np.random.default_rng(own))
        if self._shade is not None:
            self._shade.set_random_seed(own)
            unit = self._shade(image=unit)["image"]
        return unit if picture.dtype == np.uint8 else unit * full + low


#: Keeps a modality that is called "image" or "mask" apart from the keys that albumentations gives a meaning.
_PREFIX = "modality_"


def _prefixed(pictures: Mapping[str, Array]) -> dict[str, Array]:
    return {_PREFIX + name: picture for name, picture in pictures.items()}


def as_array(value: Tensor) -> Array:
    """(C, h, w) as (h, w), or (h, w, C) for more channels; 8 bits stay, everything else becomes float32."""
    kept = value if value.dtype == torch.uint8 else value.float()
    picture: Array = kept[0].numpy() if len(kept) == 1 else kept.permute(1, 2, 0).numpy()
    return picture


def as_tensor(picture: Array) -> Tensor:
    """(h, w) or (h, w, C) as (C, h, w), a view where it can be; 8 bits stay, everything else becomes float32."""
    kept = picture if picture.dtype == np.uint8 else picture.astype(np.float32, copy=False)
    value = torch.from_numpy(np.ascontiguousarray(kept))
    return value.unsqueeze(0) if value.ndim == 2 else value.permute(2, 0, 1)


def _label_array(sample: Sample) -> Array:
    """The label map as bytes."""
    target = sample["target"]
    if target.ndim != 2:
        raise DataError(f"sample '{sample['id']}': joint augmentation needs a label map, got {tuple(target.shape)}")
    label: Array = target.to(torch.uint8).numpy()
    return label


def _resize(picture: Array, size: tuple[int, int], role: Role) -> Array:
    """Brought to (H, W): nearest for ``exact``, otherwise bilinear, or averaged over areas where it shrinks."""
    height, width = picture.shape[:2]
    if (height, width) == size:
        return picture
    cv2 = _cv2()
    if role == "exact":
        method = cv2.INTER_NEAREST_EXACT
    else:
        method = cv2.INTER_AREA if height >= size[0] and width >= size[1] else cv2.INTER_LINEAR
    resized: Array = cv2.resize(picture, (size[1], size[0]), interpolation=method)
    return resized


def _to_unit(picture: Array) -> tuple[Array, float, float]:
    """8 bits as they are; anything else brought to [0, 1], with its lowest value and its range."""
    if picture.dtype == np.uint8:
        return picture, 0.0, 255.0
    low = float(picture.min())
    full = float(picture.max()) - low or 1.0
    return (picture - np.float32(low)) / np.float32(full), low, full


def _jitter(picture: Array, options: Augmentation, draw: np.random.Generator) -> Array:
    """Hue, saturation and value of three channels, or the intensity of others; 8 bits or [0, 1].

    albumentations shifts hue and saturation, ESANet scales them; hence by hand.
    """
    hue = draw.uniform(1 - options.hue, 1 + options.hue)
    saturation = draw.uniform(1 - options.saturation, 1 + options.saturation)
    value = draw.uniform(-options.value, options.value)
    if not (options.hue or options.saturation or options.value):
        return picture
    if picture.ndim == 2 or picture.shape[2] != 3:
        return _per_level(picture, [(1.0, value)])
    cv2 = _cv2()
    changes = [(hue, 0.0), (saturation, 0.0), (1.0, value)]
    if picture.dtype == np.uint8:
        hsv = _per_level(cv2.cvtColor(picture, cv2.COLOR_RGB2HSV_FULL), changes)
        return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))
    turns = np.array([360, 1, 1], np.float32)
    hsv = _per_level(cv2.cvtColor(picture, cv2.COLOR_RGB2HSV) / turns, changes) * turns
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def _per_level(picture: Array, changes: list[tuple[float, float]]) -> Array:
    """``factor * x + shift`` per channel, or the same for all, clipped to the full scale; shifts in levels of 255."""
    factors, shifts = (np.array(column, np.float32) for column in zip(*changes, strict=True))
    if picture.dtype != np.uint8:
        return np.clip(picture * factors + shifts / 255, 0, 1).astype(np.float32)
    levels = np.arange(256, dtype=np.float32)[:, None] * factors + shifts  # (256, channels)
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    looked_up: Array = _cv2().LUT(picture, table[:, 0] if len(changes) == 1 else table[None])
    return looked_up


@cache
def _cv2() -> Any:
    """OpenCV without threads of its own: loader workers are processes, and its thread pool does not survive a fork."""
    import cv2

    cv2.setNumThreads(0)
    return cv2


@cache
def _albumentations() -> Any:
    """albumentations, kept from asking the network for its newest version."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    _cv2()
    return importlib.import_module("albumentations")


def _turning(options: Augmentation, roles: Mapping[str, Role]) -> Any:
    """What mirrors and rotates; None where nothing does."""
    if not (options.flip or options.vertical_flip or options.rotate):
        return None
    library = _albumentations()
    steps = []
    if options.flip:
        steps.append(library.HorizontalFlip(p=options.flip))
    if options.vertical_flip:
        steps.append(library.VerticalFlip(p=options.vertical_flip))
    if options.rotate:
        steps.append(library.Rotate(limit=options.rotate, border_mode=_cv2().BORDER_CONSTANT, fill=0, fill_mask=0, p=1))
    targets = {_PREFIX + name: "mask" if role == "exact" else "image" for name, role in roles.items()}
    return library.Compose(steps, additional_targets=targets, is_check_shapes=False)


def _shading(options: Augmentation) -> Any:
    """What changes brightness, contrast, sharpness and noise; None where nothing does."""
    if not (options.brightness or options.contrast or options.noise or options.blur):
        return None
    library = _albumentations()
    steps = []
    if options.brightness or options.contrast:
        steps.append(
            library.RandomBrightnessContrast(
                brightness_limit=options.brightness, contrast_limit=options.contrast, ensure_safe_range=False, p=1
            )
        )
    if options.blur:
        steps.append(library.GaussianBlur(blur_limit=0, sigma_limit=(0.5, 1.5), p=options.blur))
    if options.noise:
        steps.append(library.GaussNoise(std_range=(0.0, options.noise), per_channel=True, p=1))
    return library.Compose(steps)
