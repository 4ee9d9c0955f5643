"""A dense run leaves a picture sheet; what it measures does not depend on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runs import results, write_config
from PIL import Image

from robustmm.cli import run
from robustmm.report.sheet import STRIPS

SHEET = Path("made/eval/pictures.png")
FILES = ("results.json", "eval/combinations.json", "eval/combinations.csv")
DENSE = {
    "data": {"dataset": {"name": "synthetic", "dense": True, "samples": 8, "size": 8, "missing_rate": 0.3}},
    "model": {"encoders": None},
    "train": {"epochs": 1},
}


def drawn() -> int:
    """Samples on the sheet, which stand one below the other."""
    with Image.open(SHEET) as sheet:
        return len(sheet.info[STRIPS].split()) - 1


def test_pictures__are_drawn_and_change_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, **DENSE, evaluation={"pictures": 2})
    assert run(["train", "-c", config, "--folder", "made"]) == 0
    assert f"pictures    {SHEET}\n" in capsys.readouterr().out
    assert drawn() == 2
    assert "data:image/" in Path("made/report.html").read_text(encoding="utf-8")
    assert len(results(Path("made"))["colours"]) == 4
    before = [Path("made", name).read_bytes() for name in FILES]

    assert run(["evaluate", "made", "--pictures", "3"]) == 0
    assert drawn() == 3
    assert [Path("made", name).read_bytes() for name in FILES] == before

    assert run(["evaluate", "made", "--pictures", "0"]) == 0
    assert not SHEET.exists()
    assert "data:image/" not in Path("made/report.html").read_text(encoding="utf-8")
    assert [Path("made", name).read_bytes() for name in FILES] == before


def test_pictures__fewer_samples_than_asked_for_are_all_drawn(tmp_path: Path) -> None:
    assert run(["train", "-c", write_config(tmp_path, **DENSE), "--folder", "made"]) == 0
    assert drawn() == results(Path("made"))["data"]["test_samples"] == 4


def test_pictures__classification_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "-c", write_config(tmp_path), "--folder", "made"]) == 0
    assert not SHEET.exists()
    assert "pictures" not in capsys.readouterr().out
    assert "colours" not in results(Path("made"))


def test_pictures__key_refuses_what_no_sheet_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, **DENSE, evaluation={"pictures": 33})
    assert run(["train", "-c", config, "--folder", "made"]) == 2
    assert "evaluation.pictures" in capsys.readouterr().err
