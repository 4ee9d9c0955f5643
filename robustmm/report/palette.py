"""Colours of pictures: classes, values, errors, and tones for what is not there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

#: Told apart by people with any common colour vision, in the order in which classes get them.
#: Source: Okabe and Ito, Color Universal Design, 2008; their black is left to backgrounds.
FIRST_COLOURS: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
#: Of a first class that is what is left when everything else is named.
BACKGROUND: Colour = (43, 47, 54)
BACKGROUND_NAMES = frozenset({"background", "other", "others", "none", "void", "unlabelled", "unlabeled", "rest"})
#: Lightness and chroma (OKLab) of further class colours: neither greys nor glaring, neither near black nor near white.
LIGHTNESS, CHROMA = (0.38, 0.92), (0.06, 0.22)
#: Steps per channel among which further class colours are searched.
STEPS = 16

#: Low to high in equal steps of lightness; between them colours are mixed.
#: Source: viridis (Smith and van der Walt, 2015, CC0), ten evenly spaced colours.
VALUE_COLOURS: tuple[Colour, ...] = (
    (68, 1, 84),
    (72, 40, 120),
    (62, 74, 137),
    (49, 104, 142),
    (38, 130, 142),
    (31, 158, 137),
    (53, 183, 121),
    (109, 205, 89),
    (180, 222, 44),
    (253, 231, 37),
)
#: A value that was not measured. No value colour is a grey.
INVALID: Colour = (136, 138, 142)
#: No label: stripes, so that no class colour can be taken for it.
VOID_STRIPES: tuple[Colour, Colour] = ((196, 200, 206), (232, 234, 238))
RIGHT: Colour = (198, 220, 238)
WRONG: Colour = (200, 48, 8)


def class_colours(classes: Sequence[str], given: Sequence[Colour] | None = None) -> Bytes:
    """One colour per class, (C, 3).

    Args:
        classes: Names; a first class such as ``background`` is dark.
        given: The data set's own colours; used where there is one for every class.
    """
    if given is not None and len(given) == len(classes):
        return np.array(given, dtype=np.uint8).reshape(-1, 3)
    dark = [BACKGROUND] if classes and classes[0].lower() in BACKGROUND_NAMES else []
    return np.array(dark + distinct_colours(len(classes) - len(dark)), dtype=np.uint8).reshape(-1, 3)


@cache
def _candidates() -> Bytes:
    """Colours that a class may have, in a fixed order, (N, 3)."""
    levels = np.linspace(0, 255, STEPS).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = oklab(grid)
    light, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    return grid[(light >= LIGHTNESS[0]) & (light <= LIGHTNESS[1]) & (chroma >= CHROMA[0]) & (chroma <= CHROMA[1])]


def distinct_colours(count: int) -> list[Colour]:
    """The first colours, then each time the one furthest from all before; they repeat only after thousands."""
    chosen = list(FIRST_COLOURS[:count])
    if count <= len(FIRST_COLOURS):
        return chosen
    pool = _candidates()
    lab = oklab(pool)
    taken = oklab(np.array([*FIRST_COLOURS, BACKGROUND], dtype=np.uint8))
    distance = np.linalg.norm(lab[:, None] - taken[None], axis=2).min(axis=1)
    while len(chosen) < count:
        if distance.max() <= 0:
            return (chosen * (count // len(chosen) + 1))[:count]
        place = int(distance.argmax())
        red, green, blue = pool[place].tolist()
        chosen.append((red, green, blue))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[place], axis=1))
    return chosen


def oklab(colours: NDArray[Any]) -> Floats:
    """sRGB, (..., 3) of 0..255, to OKLab (..., 3), in which distances are about as large as they look.

    Source:
        Björn Ottosson, A perceptual color space for image processing, 2020 (public domain).
    """
    share = colours / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    result: Floats = np.cbrt(linear @ to_cones.T) @ to_lab.T
    return result


def value_colours(share: NDArray[Any]) -> Bytes:
    """Shares of the way from low to high, any shape, to colours (..., 3); beyond 0..1 the end colours."""
    stops = np.linspace(0, 1, len(VALUE_COLOURS))
    table = np.array(VALUE_COLOURS, dtype=np.float64)
    mixed = [np.interp(share, stops, table[:, channel]) for channel in range(3)]
    result: Bytes = np.stack(mixed, axis=-1).round().astype(np.uint8)
    return result
