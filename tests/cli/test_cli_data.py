"""``robustmm data list`` and ``robustmm data check``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cli_runs import write_config, write_plugins

from robustmm.cli import run
from robustmm.plugin_manager import set_plugins_dirs

#: A data set that raises, and one of which a sample is not finite.
PLUGIN = """
import torch
from robustmm import ArrayDataset, Component, DataSplits, Modality, Options, hookimpl

def part(prefix):
    values = torch.zeros(4, 1)
    return ArrayDataset({"x": values}, torch.tensor([0, 1, 0, 1]), [f"{prefix}{row}" for row in range(4)])

def build_holed():
    test = part("test")
    test.inputs["x"][2] = torch.inf
    return DataSplits((Modality("x", "vector", (1,)),), "classification", ("a", "b"), part("train"), test)

def build_broken():
    raise KeyError("column")

@hookimpl
def robustmm_register_datasets(register):
    register(Component("holed", build_holed, Options, "Has a hole.", "test"))
    register(Component("broken", build_broken, Options, "Raises.", "test"))
"""


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROBUSTMM_DATA", raising=False)
    set_plugins_dirs()
    yield
    set_plugins_dirs()


def test_data_list__tells_shipped_absent_and_broken_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--plugins-dir", write_plugins(tmp_path, odd=PLUGIN), "data", "list", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert {name: one["state"] for name, one in listed.items()} == {
        "av_digits": "not here",
        "broken": "broken",
        "emoji_image_text": "shipped",
        "handwritten_6views": "shipped",
        "handwritten_6views_tmc": "not here",
        "holed": "here",
        "manifest": "needs options",
        "smartwatch_imu": "shipped",
        "synthetic": "here",
        "tcga_breast": "not here",
    }
    assert listed["handwritten_6views"]["modalities"][0] == "pixel vector 240"
    assert listed["handwritten_6views"]["parts"] == {"train": 1600, "test": 400}
    assert listed["handwritten_6views"]["licence"] == "CC BY 4.0"
    assert listed["holed"]["licence"] == "not stated"
    assert "Clone github.com/Jakobovski/free-spoken-digit-dataset" in listed["av_digits"]["problem"]
    assert listed["manifest"]["problem"] == "needs csv, modalities"
    assert listed["broken"]["problem"] == "KeyError: 'column'"


def test_data_list__is_read_by_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "list"]) == 0
    blocks = {block.partition("  (")[0]: block.splitlines() for block in capsys.readouterr().out.split("\n\n")}
    assert blocks["smartwatch_imu"][0] == "smartwatch_imu  (shipped)"
    assert blocks["smartwatch_imu"][2:] == [
        "  acc sequence 3x200; gyro sequence 3x200",
        "  1959 train, 270 test; 7 classes; licence: BSD-3-Clause",
    ]
    assert blocks["tcga_breast"][2].startswith("  data set 'tcga_breast': $ROBUSTMM_DATA/tcga_breast: ")


def test_data_check__shows_counts_and_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["-o", "modalities=3", "-o", "missing_rate=0.3", "-o", "samples=64"]
    assert run(["data", "check", "synthetic", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "synthetic: 64 train, 32 validation, 32 test; classification"
    (row,) = [line.split() for line in lines if line.startswith("m2")]
    assert row[:3] == ["m2", "vector", "16"]
    assert 0 < int(row[3]) < 64
    assert ["class0", "16", "8", "8"] in [line.split() for line in lines]
    assert lines[-1] == "nothing is wrong"


def test_data_check__names_what_is_wrong_and_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugins = ["--plugins-dir", write_plugins(tmp_path, odd=PLUGIN)]
    assert run([*plugins, "data", "check", "holed"]) == 1
    text = capsys.readouterr().out
    assert text.endswith("wrong:\n  test: x holds values that are not finite: sample 'test2'\n")
    assert run([*plugins, "data", "check", "holed", "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert record["problems"] == ["test: x holds values that are not finite: sample 'test2'"]
    sizes = {"samples": 4, "readable": 4, "per_class": [2, 2]}
    assert record["parts"]["train"] == {**sizes, "missing": {"x": 0}, "unreadable": []}


def test_data_check__takes_the_data_set_of_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", "-c", write_config(tmp_path), "-o", "data.dataset.samples=24"]) == 0
    assert capsys.readouterr().out.startswith("synthetic: 24 train, 12 validation, 12 test")


def test_data_check__reads_nested_options_of_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["split,x,label", "train,1 2,a", "train,3 4,b", "test,5 6,a"]
    (tmp_path / "data.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert run(["data", "check", "manifest", "-o", "csv=data.csv", "-o", "modalities.x.kind=vector"]) == 0
    assert capsys.readouterr().out.startswith("manifest: 2 train, 1 test; classification")


def bad_manifest(folder: Path) -> list[str]:
    """Words of a check of a manifest whose second sample is no image."""
    rows = ["split,x,rgb,label", "train,1,,a", "train,3,bad.png,b", "train,2,good.npy,b", "test,5,good.npy,a"]
    (folder / "data.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "bad.png").write_bytes(b"no image")
    np.save(folder / "good.npy", np.zeros((3, 2, 2)))
    options = ["modalities.x.kind=vector", "modalities.rgb.kind=image", "modalities.rgb.size=[2, 2]"]
    return ["data", "check", "manifest", *(word for option in ["csv=data.csv", *options] for word in ("-o", option))]


def test_data_check__lists_cells_that_count_as_absent_and_ends_with_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*bad_manifest(tmp_path), "-o", "on_unreadable=missing"]
    assert run(words) == 0
    text = capsys.readouterr().out
    assert "\nunreadable: 1\nunreadable_cells: train rgb 1\n" in text
    heading, cell, _, end = text.splitlines()[-4:]
    assert heading == "unreadable, counted as absent:"
    assert cell.startswith("  train: data.csv:3 column rgb: bad.png: not a readable image")
    assert end == "nothing else is wrong"
    assert run([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parts"]["train"]["unreadable"] == [cell.removeprefix("  train: ")]


def test_data_check__has_no_count_of_absent_cells_where_bad_ones_are_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = bad_manifest(tmp_path)
    # the shape is read from the first training cell of the column, which must be sound for the check to begin
    text = (tmp_path / "data.csv").read_text(encoding="utf-8")
    (tmp_path / "data.csv").write_text(text.replace("1,,a", "1,good.npy,a"), encoding="utf-8")
    assert run(words) == 1
    out = capsys.readouterr().out
    assert "unreadable" not in out.partition("wrong:")[0]
    assert "train: a sample cannot be read: data.csv:3 column rgb: bad.png: not a readable image" in out
    assert out.endswith("; on_unreadable: missing counts it as absent\n")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            ["synthetic", "-o", "modalites=3"],
            "synthetic.modalites: unknown key - did you mean 'modalities' (default 2)?",
        ),
        (["synthetic", "-o", "noise"], "-o noise: expected key=value"),
        (["synthetic", "-o", "noise=["], "-o noise=[: not valid YAML: "),
        (["synthetc"], "unknown dataset 'synthetc' - did you mean 'synthetic'? Known: "),
        ([], "Usage: robustmm data check"),
        (["synthetic", "-c", "x.yaml"], "Usage: robustmm data check"),
        (["tcga_breast"], "data set 'tcga_breast': $ROBUSTMM_DATA/tcga_breast: environment variable"),
    ],
)
def test_data_check__refuses_with_a_repair(words: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", *words]) == 2
    assert capsys.readouterr().err.startswith(error)
