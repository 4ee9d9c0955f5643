"""The picture sheet within the page: strips that break well in print, small enough to be mailed."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError, features

from robustmm.errors import CheckpointError
from robustmm.report.sheet import DESCRIPTION, STRIPS

#: Bytes of all strips together, before they are written as text, which adds a third.
BUDGET = 1_200_000


@dataclass(frozen=True)
class Coding:
    """How strips are compressed.

    Args:
        scale: Of the sheet's size.
        quality: 0..100; None keeps every colour as it is.
    """

    scale: float
    quality: int | None


#: The first that keeps the budget is taken, else the last.
CODINGS = (Coding(1, None), Coding(1, 85), Coding(0.8, 80), Coding(0.6, 75), Coding(0.45, 70), Coding(0.3, 60))


@dataclass(frozen=True)
class Strip:
    """A part of the sheet over its whole width.

    Args:
        uri: The picture itself, as ``data:`` address.
        width: In pixels.
        height: In pixels.
    """

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class EmbeddedSheet:
    """What the page shows of the sheet.

    Args:
        strips: From top to bottom.
        description: What the sheet shows, in words.
        scale: Of its full size.
    """

    strips: tuple[Strip, ...]
    description: str
    scale: float


def embed_sheet(path: Path) -> EmbeddedSheet | None:
    """The sheet as it goes into the page; None where there is none.

    Raises:
        CheckpointError: the file is no picture.
    """
    if not path.is_file():
        return None
    try:
        with Image.open(path) as opened:
            sheet = opened.convert("RGB")
            texts = {key: str(value) for key, value in opened.info.items() if isinstance(value, str)}
    except (UnidentifiedImageError, OSError, SyntaxError) as error:  # what Pillow says of a damaged PNG
        raise CheckpointError(
            f"{path} is no readable picture ({error}); delete it, or run `robustmm evaluate`"
        ) from error
    parts = list(_cut(sheet, [int(word) for word in texts.get(STRIPS, "").split()]))
    for coding in CODINGS:
        encoded = [_encode(part, coding) for part in parts]
        if sum(len(data) for data, _ in encoded) <= BUDGET:
            break
    strips = tuple(Strip(_address(data), *size) for data, size in encoded)
    return EmbeddedSheet(strips, texts.get(DESCRIPTION, "Picture sheet of the run."), coding.scale)


def _cut(sheet: Image.Image, ends: Sequence[int]) -> Iterator[Image.Image]:
    """Strips that end at ``ends``; one strip where nothing is known."""
    top = 0
    for end in [*(end for end in ends if end < sheet.height), sheet.height]:
        yield sheet.crop((0, top, sheet.width, end))
        top = end


def _encode(part: Image.Image, coding: Coding) -> tuple[bytes, tuple[int, int]]:
    size = max(1, round(part.width * coding.scale)), max(1, round(part.height * coding.scale))
    small = part if size == part.size else part.resize(size, Image.Resampling.LANCZOS)
    buffer = BytesIO()
    if coding.quality is None:
        small.save(buffer, "PNG") if not _webp() else small.save(buffer, "WEBP", lossless=True, quality=40, method=2)
    else:
        small.save(buffer, "WEBP" if _webp() else "JPEG", quality=coding.quality)
    return buffer.getvalue(), size


def _webp() -> bool:
    return bool(features.check("webp"))


def _address(data: bytes) -> str:
    kind = {b"\x89P": "png", b"\xff\xd8": "jpeg"}.get(data[:2], "webp")
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
