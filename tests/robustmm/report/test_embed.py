from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from robustmm.errors import CheckpointError
from robustmm.report import embed
from robustmm.report.embed import Strip, embed_sheet
from robustmm.report.sheet import DESCRIPTION, STRIPS


def save(path: Path, pixels: np.ndarray, **texts: str) -> None:
    information = PngInfo()
    for key, text in texts.items():
        information.add_itxt(key, text)
    Image.fromarray(pixels).save(path, pnginfo=information)


def decoded(strip: Strip) -> np.ndarray:
    head, data = strip.uri.split(",", 1)
    assert head.startswith("data:image/")
    with Image.open(BytesIO(base64.b64decode(data))) as opened:
        return np.asarray(opened.convert("RGB"))


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)


def test_embed__small_sheet_keeps_every_pixel_in_strips(tmp_path: Path, pixels: np.ndarray) -> None:
    save(tmp_path / "sheet.png", pixels, **{DESCRIPTION: "ä sheet", STRIPS: "10 35 60"})
    sheet = embed_sheet(tmp_path / "sheet.png")
    assert sheet is not None
    assert (sheet.description, sheet.scale) == ("ä sheet", 1)
    assert [(strip.width, strip.height) for strip in sheet.strips] == [(40, 10), (40, 25), (40, 25)]
    assert np.array_equal(np.concatenate([decoded(strip) for strip in sheet.strips]), pixels)


def test_embed__large_sheet_is_made_smaller(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "BUDGET", 1500)
    save(tmp_path / "sheet.png", pixels, **{STRIPS: "30 60"})
    sheet = embed_sheet(tmp_path / "sheet.png")
    assert sheet is not None
    assert sheet.scale < 1
    assert sum(len(base64.b64decode(strip.uri.split(",")[1])) for strip in sheet.strips) <= 1500
    assert decoded(sheet.strips[0]).shape[1] == round(40 * sheet.scale)


def test_embed__pillow_without_webp_takes_what_it_has(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "_webp", lambda: False)
    save(tmp_path / "sheet.png", pixels)
    sheet = embed_sheet(tmp_path / "sheet.png")
    assert sheet is not None
    assert sheet.strips[0].uri.startswith("data:image/png;")
    assert np.array_equal(decoded(sheet.strips[0]), pixels)
    monkeypatch.setattr(embed, "BUDGET", 4500)
    sheet = embed_sheet(tmp_path / "sheet.png")
    assert sheet is not None
    assert sheet.strips[0].uri.startswith("data:image/jpeg;")


def test_embed__no_sheet_is_none(tmp_path: Path) -> None:
    assert embed_sheet(tmp_path / "sheet.png") is None


def test_embed__damaged_sheet_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "sheet.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(CheckpointError, match=r"sheet\.png is no readable picture .*delete it, or run"):
        embed_sheet(tmp_path / "sheet.png")
