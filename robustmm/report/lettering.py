"""Text and boxes in pictures, in Pillow's own scalable font: nothing depends on what a machine has installed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from robustmm.report.palette import Bytes, Colour

PAPER: Colour = (255, 255, 255)
INK: Colour = (27, 33, 39)
MUTED: Colour = (85, 96, 107)
RULE: Colour = (207, 212, 218)
#: Sizes of letters, and distance between the tops of two lines of body text, in pixels.
TITLE, BODY, SMALL = 34, 21, 18
LINE_HEIGHT = 26
ELLIPSIS = "..."
#: Length of a dash and of the gap after it, in pixels.
DASH = 8


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font in a size in pixels; Pillow without FreeType has its one bitmap font alone."""
    return ImageFont.load_default(size)


def width_of(text: str, size: int) -> int:
    """Pixels that a line takes."""
    return -int(-font(size).getlength(text) // 1)


def shorten(text: str, size: int, width: int) -> str:
    """A line that fits, its end replaced by dots where it has to be."""
    if width_of(text, size) <= width:
        return text
    kept = len(text)
    while kept and width_of(text[:kept].rstrip() + ELLIPSIS, size) > width:
        kept -= 1
    return text[:kept].rstrip() + ELLIPSIS


def wrap(words: Sequence[str], size: int, width: int) -> list[str]:
    """Lines of words that bring their own spaces, each filled as far as it goes; a word too long is shortened."""
    lines: list[str] = []
    for word in words:
        if lines and width_of((lines[-1] + word).rstrip(), size) <= width:
            lines[-1] += word
        else:
            lines.append(word)
    return [shorten(line.strip(), size, width) for line in lines]


def wrap_text(text: str, size: int, width: int) -> list[str]:
    """Lines of a running text."""
    return wrap([f"{word} " for word in text.split()], size, width)


class Canvas:
    """An RGB picture of paper to draw on.

    Args:
        width: In pixels.
        height: In pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), PAPER)
        self._draw = ImageDraw.Draw(self.image)

    def text(self, x: int, y: int, text: str, size: int = BODY, colour: Colour = INK) -> int:
        """Write a line whose top is ``y``; gives the place after its end."""
        self._draw.text((x, y), text, fill=colour, font=font(size), anchor=None)
        return x + width_of(text, size)

    def lines(self, x: int, y: int, lines: Sequence[str], size: int = BODY, colour: Colour = INK) -> int:
        """Write lines below each other; gives the place below the last."""
        for place, line in enumerate(lines):
            self.text(x, y + place * LINE_HEIGHT, line, size, colour)
        return y + len(lines) * LINE_HEIGHT

    def picture(self, x: int, y: int, pixels: Bytes, box: tuple[int, int]) -> None:
        """Put (H, W, 3) into the middle of a box (height, width)."""
        height, width = pixels.shape[:2]
        self.image.paste(Image.fromarray(pixels), (x + (box[1] - width) // 2, y + (box[0] - height) // 2))

    def swatch(self, x: int, y: int, pixels: Bytes) -> None:
        """A sample of a colour with a thin edge, so that light ones are seen."""
        height, width = pixels.shape[:2]
        self.image.paste(Image.fromarray(pixels), (x, y))
        self._draw.rectangle((x, y, x + width - 1, y + height - 1), outline=MUTED)

    def rule(self, x: int, y: int, width: int) -> None:
        """A thin line across."""
        self._draw.line((x, y, x + width, y), fill=RULE, width=2)

    def dashed_box(self, x: int, y: int, box: tuple[int, int], text: str) -> None:
        """An empty place (height, width) with a word in its middle."""
        right, bottom = x + box[1] - 1, y + box[0] - 1
        for start in range(x, right, 2 * DASH):
            for edge in (y, bottom):
                self._draw.line((start, edge, min(start + DASH, right), edge), fill=MUTED)
        for start in range(y, bottom, 2 * DASH):
            for edge in (x, right):
                self._draw.line((edge, start, edge, min(start + DASH, bottom)), fill=MUTED)
        word = shorten(text, SMALL, box[1] - 8)
        self.text(x + (box[1] - width_of(word, SMALL)) // 2, y + (box[0] - LINE_HEIGHT) // 2, word, SMALL, MUTED)
