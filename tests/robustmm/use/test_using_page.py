"""The examples of docs/using.md do what the text says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from used_runs import PHOTO, train_run

from robustmm.cli import run

PAGE = Path(__file__).parents[3] / "docs" / "using.md"
ROWS = "photo,sensor,label,split\n" + "".join(
    f"photo.jpg,{place} 1 {place % 3},{'ab'[place % 2]},{part}\n" for part in ("train", "test") for place in range(6)
)


def test_using__examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in re.findall(r"^```python\n# (\S+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S):
        Path(name).write_text(text, encoding="utf-8")
    Path("set.csv").write_text(ROWS, encoding="utf-8")
    Image.fromarray(np.full((8, 8, 3), 99, np.uint8)).save("photo.jpg")
    train_run(
        tmp_path,
        "RUN",
        data={"dataset": {"name": "manifest", "csv": "set.csv", "modalities": PHOTO}, "batch_size": 4},
        model={"encoders": {"default": None, "image": "small_cnn", "vector": {"name": "mlp", "hidden": [4]}}},
    )
    capsys.readouterr()
    runpy.run_path("use.py")
    first, second, *combinations = capsys.readouterr().out.splitlines()
    assert first.endswith("('photo',)")
    assert re.match(r"\[\('a', '[ab]'\), \('b', '[ab]'\)\]", second)
    assert [line.partition(")")[0] for line in combinations] == ["('photo',", "('sensor',", "('photo', 'sensor'"]
    assert run(["export", "RUN", "--format", "torch", "-o", "model.pt2"]) == 0
    capsys.readouterr()
    runpy.run_path("exported.py")
    assert "'photo': ['batch', 3, 8, 8]" in capsys.readouterr().out
