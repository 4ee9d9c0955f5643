"""Every file in configs/ says what it is, passes the check, and works."""

from __future__ import annotations

import os
import re
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from image_layouts import write_prepared
from official_layouts import write_official

from robustmm.cli import run
from robustmm.config.load import load_config
from robustmm.errors import DataError
from robustmm.plugin_manager import get_plugins

FOLDER = Path(__file__).parents[2] / "configs"
CONFIGS = sorted(path for path in FOLDER.rglob("*.yaml") if "base" not in path.relative_to(FOLDER).parts)
#: Data sets that are not part of the project: they lie below the folder that ROBUSTMM_DATA names. Of others, tiny ones
#: are written in the right layout instead.
FOREIGN = {"av_digits", "tcga_breast", "handwritten_6views_tmc"}
OFFICIAL = {"nyu": "nyuv2", "sunrgbd": "sunrgbd", "cityscapes": "cityscapes"}
PREPARED = {"pothole": "pothole_rgbd", "mslesion": "ms_lesion_mri"}
QUICK = ("data.batch_size=16", "evaluation.batch_size=16", "train.threads=1")
#: A network of the same kind and small pictures in place of ResNet-50 at 480 x 640.
SMALL = (
    "data.dataset.size=[32,64]",
    "data.batch_size=2",
    "data.workers=0",
    "evaluation.batch_size=1",
    'train.precision="32"',
    "train.threads=1",
    "train.accelerator=cpu",
    "model.encoders.default.name=esanet_resnet18",
)


def _param(path: Path) -> Any:
    """A configuration; reading foreign data takes seconds."""
    foreign = any(dataset in path.stem for dataset in FOREIGN)
    return pytest.param(path, id=path.stem, marks=[pytest.mark.data, pytest.mark.slow] if foreign else [])


def _written(path: Path) -> str | None:
    """The data set that is written for a configuration; None where it is shipped or foreign."""
    known = OFFICIAL | PREPARED
    return next((name for word, name in known.items() if word in path.stem.split("_")), None)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny data sets in the layouts that are read."""
    folder = tmp_path_factory.mktemp("data")
    for name in OFFICIAL.values():
        write_official(name, folder / name)
    for name in PREPARED.values():
        write_prepared(name, folder / name)
    return folder


each_config = pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])


def test_configs__there_are_some() -> None:
    assert CONFIGS


@each_config
def test_config__starts_with_what_it_is_and_the_command(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = list(takewhile(lambda line: line.startswith("#"), lines))
    assert len(comment) >= 2, f"{path.name} does not start with a comment that says what it is"
    command = f"robustmm train -c configs/{path.relative_to(FOLDER).as_posix()}"
    assert any(re.search(rf"{re.escape(command)}\b", line) for line in comment), f"{path.name} does not say: {command}"


@each_config
def test_config__validates(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "validate", "-c", str(path)]) == 0
    assert capsys.readouterr().out.startswith("ok\n")


@pytest.mark.parametrize("path", [_param(path) for path in CONFIGS])
def test_config__works_for_a_step(
    path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = _written(path)
    if written is not None:
        monkeypatch.setenv("ROBUSTMM_DATA", str(tiny_data))
    config = load_config([path], [], get_plugins().registry).config
    if config.data.dataset.name in FOREIGN and not _has_data(config.data.dataset.name):
        pytest.skip(f"ROBUSTMM_DATA has no {config.data.dataset.name}")
    assert written in (None, config.data.dataset.name)
    overrides = SMALL if written in OFFICIAL.values() else QUICK
    if written in PREPARED.values():
        overrides = (*overrides, "data.dataset.size=[48,40]")
    if written == "cityscapes":
        overrides = (*overrides, "data.dataset.evaluation_size=[64,128]")
    assert run(["train", "-c", str(path), *(f"-o{text}" for text in overrides), "--dry-run"]) == 0
    assert "a training step and an evaluation batch" in capsys.readouterr().out


def _has_data(dataset: str) -> bool:
    """Whether the data set can be built from ROBUSTMM_DATA."""
    if "ROBUSTMM_DATA" not in os.environ:
        return False
    component = get_plugins().registry.get("dataset", dataset)
    try:
        component.build(**dict(component.options()))
    except DataError:
        return False
    return True
