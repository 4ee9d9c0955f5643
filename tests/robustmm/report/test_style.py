"""Colours of the pages are told apart and read, in light and in dark."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from robustmm.report import html
from robustmm.report.heat import MOST_TINT, span_of, tint

STYLE = (Path(html.__file__).parent / "report.css").read_text(encoding="utf-8")


def colours_of(scheme: int) -> dict[str, str]:
    """Variables of the style sheet, in light (0) or in dark (1)."""
    blocks = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})\b", blocks[scheme]))


def _luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_style__contrast_reaches_wcag_aa(scheme: int) -> None:
    # WCAG 2.1, 1.4.3 (text, 4.5) and 1.4.11 (marks, 3)
    colours = colours_of(scheme)
    for text, ground in (
        ("ink", "surface"),
        ("ink", "page"),
        ("ink", "bar"),
        ("muted", "surface"),
        ("muted", "page"),
        ("warn-ink", "warn-page"),
        ("bad-ink", "bad-page"),
    ):
        assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for mark in ("accent", *(f"s{number}" for number in range(8))):
        assert _contrast(colours[mark], colours["surface"]) >= 3, mark


def _mixed(one: str, other: str, percent: float) -> str:
    """What ``color-mix(in srgb, one percent, other)`` gives."""
    pairs = [(int(one[start : start + 2], 16), int(other[start : start + 2], 16)) for start in (1, 3, 5)]
    return "#" + "".join(f"{round(a * percent / 100 + b * (1 - percent / 100)):02x}" for a, b in pairs)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("colour", ["s0", "s1"], ids=["gain", "loss"])
def test_heat__numbers_are_readable_in_the_darkest_cell(scheme: int, colour: str) -> None:
    colours = colours_of(scheme)
    assert _contrast(colours["ink"], _mixed(colours[colour], colours["page"], MOST_TINT)) >= 4.5


def test_tint__grows_with_the_value_and_ends_at_the_largest() -> None:
    assert [tint(value, 2.0) for value in (0.0, 1.0, 2.0, 3.0)] == [0.0, MOST_TINT / 2, MOST_TINT, MOST_TINT]
    assert tint(0.0, 0.0) == 0.0


def test_span__small_changes_do_not_span_the_colours() -> None:
    assert span_of([0.004, -0.01, None], scale=1.0) == 0.05
    assert span_of([0.004, -0.3], scale=1.0) == 0.3
    assert span_of([], scale=60.0) == 3.0  # an error in the unit of its quantity
