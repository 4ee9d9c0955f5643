"""``robustmm data list``, ``robustmm data check`` and ``robustmm data prepare``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cli_runs import write_config, write_plugins

from robustmm.cli import run
from robustmm.commands import progress
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


#: Label maps with depth, read from a folder of numbers that has to be prepared.
DENSE_PLUGIN = """
from pathlib import Path
import torch
from robustmm import ArrayDataset, Component, DataError, DataSplits, Modality, Options, Scaling, hookimpl

class DenseOptions(Options):
    root: str = "nowhere"

def build(root):
    if not (Path(root) / "ready").is_file():
        raise DataError(f"data set 'dense': {root} is not prepared")
    depth = torch.tensor([[0, 500, 1000], [2000, 3000, 4000]]).view(2, 1, 1, 3)
    maps = torch.tensor([[[0, 0, 1]], [[0, 255, 255]]])
    train, test = (ArrayDataset({"depth": depth}, maps, [f"{part}{row}" for row in range(2)]) for part in "ab")
    modality = Modality("depth", "image", (1, 1, 3), Scaling(invalid=0.0), "mm")
    return DataSplits((modality,), "segmentation", ("wall", "floor"), train, test)

def prepare(source, target, track):
    target.mkdir(parents=True, exist_ok=True)
    for number in track("writing", range(3)):
        (target / "ready").write_text(str(number))
    return f"wrote 3 numbers from {source.name} to {target.name}"

@hookimpl
def robustmm_register_datasets(register):
    register(Component("dense", build, DenseOptions, "Maps.", "test", prepare=prepare))
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
    assert {name: one["state"] for name, one in listed.items()}.items() >= {
        "av_digits": "not here",
        "broken": "broken",
        "emoji_image_text": "shipped",
        "handwritten_6views": "shipped",
        "handwritten_6views_tmc": "not here",
        "holed": "here",
        "manifest": "needs options",
        "nyuv2": "not here",
        "smartwatch_imu": "shipped",
        "synthetic": "here",
        "tcga_breast": "not here",
    }.items()
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
    values = {"x": {"sizes": {}, "lowest": 0.0, "highest": 0.0, "mean": 0.0, "not_measured": None}}
    assert record["parts"]["train"] == {**sizes, "missing": {"x": 0}, "unreadable": [], "values": values}


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


def test_data_prepare__writes_what_check_reads_from_its_root(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    plugins = ["--plugins-dir", write_plugins(tmp_path, dense=DENSE_PLUGIN)]
    (tmp_path / "published").mkdir()
    assert run([*plugins, "data", "check", "dense", "ready_made"]) == 2
    assert capsys.readouterr().err == "data set 'dense': ready_made is not prepared\n"
    assert run([*plugins, "data", "prepare", "dense", "published", "ready_made"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "wrote 3 numbers from published to ready_made\n"
    assert shown.err.splitlines() == ["writing: 0 of 3", "writing: 1 of 3", "writing: 2 of 3"]
    assert run([*plugins, "data", "check", "dense", "ready_made"]) == 0


def test_data_prepare__draws_a_bar_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    plugins = ["--plugins-dir", write_plugins(tmp_path, dense=DENSE_PLUGIN)]
    assert run([*plugins, "data", "prepare", "dense", ".", "ready_made"]) == 0
    shown = capsys.readouterr()
    assert "writing" in shown.err
    assert "of 3" not in shown.err
    assert (tmp_path / "ready_made" / "ready").read_text() == "2"


def test_data_prepare__says_which_data_sets_can_be_prepared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--plugins-dir", write_plugins(tmp_path, dense=DENSE_PLUGIN), "data", "prepare", "odd", ".", "x"]) == 2
    assert capsys.readouterr().err.startswith("unknown dataset 'odd'")
    assert run(["data", "prepare", "synthetic", ".", "x"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("data set 'synthetic' has nothing to prepare, it is read as it is published; those that ")
    assert "nyuv2" in text
    assert run(["data", "prepare", "nyuv2", "nowhere", "x"]) == 2
    assert "Directory 'nowhere' does not exist" in capsys.readouterr().err


def dense_check(tmp_path: Path, *words: str) -> list[str]:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "ready").touch()
    return ["--plugins-dir", write_plugins(tmp_path, dense=DENSE_PLUGIN), "data", "check", "dense", "root", *words]


def test_data_check__of_label_maps_shows_pixels_shares_sizes_and_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(dense_check(tmp_path)) == 0
    blocks = [block.splitlines() for block in capsys.readouterr().out.split("\n\n")]
    assert [line.split() for line in blocks[1]][1] == ["depth", "image", "1x1x3", "mm", "0", "0"]
    assert blocks[2] == [
        "part   modality  sizes    lowest  highest  mean  not measured",
        "train  depth     1x3 (2)  500     4000     2100  16.67%",
        "test   depth     1x3 (2)  500     4000     2100  16.67%",
    ]
    assert blocks[3] == [
        "class   train pixels  share   maps  test pixels  share   maps  share in train",
        "wall    3             75.00%  2     3            75.00%  2     ####################",
        "floor   1             25.00%  1     1            25.00%  1     #######",
        "(void)  2                           2",
    ]
    assert blocks[4] == ["part   label maps  of void alone", "train  1x3 (2)     0", "test   1x3 (2)     0"]


def test_data_check__of_label_maps_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(dense_check(tmp_path, "--json")) == 0
    train = json.loads(capsys.readouterr().out)["parts"]["train"]
    assert (train["per_class"], train["maps_per_class"], train["void"], train["all_void"]) == ([3, 1], [2, 1], 2, 0)
    assert train["label_sizes"] == {"1x3": 2}
    assert train["values"]["depth"]["not_measured"] == pytest.approx(1 / 6)


def test_data_check__a_root_is_refused_where_there_is_no_such_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", "synthetic", "/data"]) == 2
    assert capsys.readouterr().err.startswith("synthetic.root: unknown key. Known: ")


def test_data_check__shows_the_range_of_regression_targets(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", "diabetes"]) == 0
    shown = capsys.readouterr().out
    assert "diabetes: 354 train, 88 test; regression" in shown
    lines = [line.split() for line in shown.splitlines()]
    assert ["part", "target", "lowest", "highest", "mean", "deviation"] in lines
    assert ["train", "progression", "25", "346", "150.87", "76.8805"] in lines
    assert "class" not in shown


def test_data_check__gives_regression_targets_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", "diabetes", "--json"]) == 0
    train = json.loads(capsys.readouterr().out)["parts"]["train"]
    assert "per_class" not in train
    assert train["targets"] == [
        {
            "mean": pytest.approx(150.87, abs=0.01),
            "deviation": pytest.approx(76.88, abs=0.01),
            "lowest": 25,
            "highest": 346,
        }
    ]


def test_data_list__counts_target_quantities(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "list"]) == 0
    assert "354 train, 88 test; 1 target quantity; licence: BSD-3-Clause" in capsys.readouterr().out
