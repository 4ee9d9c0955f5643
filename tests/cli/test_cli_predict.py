"""`robustmm predict`: files in, a table and maps out, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from used_runs import DENSE, train_run

import robustmm
from robustmm.cli import run

PICTURES: dict[str, Any] = {
    "data": {"dataset": {"name": "synthetic", "modalities": 2, "samples": 16, "size": 8, "kind": "image"}},
    "model": {"encoders": {"default": {"name": "small_cnn"}}},
}


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(train_run(tmp_path_factory.mktemp("vectors")))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(train_run(tmp_path_factory.mktemp("pictures"), **PICTURES))


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(train_run(tmp_path_factory.mktemp("dense"), **DENSE))


def write_pictures(folder: Path, names: str, size: tuple[int, int] = (8, 8), seed: int = 0) -> None:
    folder.mkdir()
    draw = np.random.default_rng(seed)
    for name in names:
        Image.fromarray(draw.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / f"{name}.png")


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_predict__prints_one_sample_and_writes_nothing(vectors: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(Path().iterdir())
    assert run(["predict", vectors, "--input", "m1=1 2 3 4 5 6 7 8", "--top", "2"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split("  ")[0] == "id"
    assert "probability 2" in header
    assert " m1 " in row
    assert set(Path().iterdir()) == before


def test_predict__folders_are_matched_by_stem(pictures: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(Path("left"), "abc")
    write_pictures(Path("right"), "bd", seed=1)
    assert run(["predict", pictures, "--folder", "m1=right", "--folder", "m0=left", "-o", "out"]) == 0
    assert "written to out" in capsys.readouterr().out
    rows = table(Path("out"))
    assert [(row["id"], row["modalities"]) for row in rows] == [("a", "m0"), ("b", "m0+m1"), ("c", "m0"), ("d", "m1")]
    predictor = robustmm.load(pictures, device="cpu")
    for row in rows:
        paths = {"m0": Path("left", f"{row['id']}.png"), "m1": Path("right", f"{row['id']}.png")}
        own = predictor.predict({name: path for name, path in paths.items() if path.exists()})
        assert row["label"] == own.label
        assert float(row["probability"]) == pytest.approx(own.probability, rel=1e-4)
    lines = [json.loads(line) for line in Path("out/predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == list("abcd")
    assert lines[1]["modalities"] == ["m0", "m1"]
    assert sum(lines[1]["probabilities"].values()) == pytest.approx(1, abs=1e-4)


def test_predict__a_table_has_absent_cells_and_numbers(vectors: str) -> None:
    np.save("a.npy", np.arange(8, dtype=np.float32))
    Path("set.csv").write_text("id,m0,m1,other\nx,a.npy,,1\ny,,1 1 1 1 1 1 1 1,2\nz,a.npy,a.npy,3\n", encoding="utf-8")
    assert run(["predict", vectors, "--manifest", "set.csv", "-o", "out", "--top", "3"]) == 0
    rows = table(Path("out"))
    assert [(row["id"], row["modalities"]) for row in rows] == [("x", "m0"), ("y", "m1"), ("z", "m0+m1")]
    assert float(rows[0]["probability"]) >= float(rows[0]["probability_2"]) >= float(rows[0]["probability_3"])


def test_predict__names_columns_that_it_leaves_alone(vectors: str, capsys: pytest.CaptureFixture[str]) -> None:
    cells = "1 1 1 1 1 1 1 1"
    Path("set.csv").write_text(f"ID,m0,m1,label,split,note\na,{cells},,x,test,y\n", encoding="utf-8")
    assert run(["predict", vectors, "--manifest", "set.csv"]) == 0
    assert (
        "set.csv:1 columns that are no modality are left alone: 'ID' - did you mean 'id'?, 'note' (the model"
        in capsys.readouterr().err
    )
    Path("set.csv").write_text(f"id,m0,label,split,target\na,{cells},x,test,1\n", encoding="utf-8")
    assert run(["predict", vectors, "--manifest", "set.csv"]) == 0
    assert "left alone" not in capsys.readouterr().err


@pytest.mark.parametrize(("header", "meant"), [("m0,m", "m1"), ("m0,M1", "m1"), ("m0,m1_", "m1"), ("M1", "m1")])
def test_predict__refuses_a_misspelt_column(
    vectors: str, header: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("set.csv").write_text(f"{header}\n{','.join(['1 1 1 1 1 1 1 1'] * 2)}\n", encoding="utf-8")
    assert run(["predict", vectors, "--manifest", "set.csv"]) == 2
    wrong = header.split(",")[-1]
    assert f"column '{wrong}' is no modality - did you mean '{meant}'?" in capsys.readouterr().err


def test_predict__dense_maps_have_the_pictures_size(dense: str) -> None:
    write_pictures(Path("left"), "ab", size=(12, 10))
    assert run(["predict", dense, "--folder", "m0=left", "-o", "out", "--top", "2"]) == 0
    for row in table(Path("out")):
        labels = np.array(Image.open(Path("out", row["map"])))
        own = robustmm.load(dense, device="cpu").predict({"m0": Path("left", f"{row['id']}.png")})
        assert own.map is not None
        assert np.array_equal(labels, own.map.numpy())
        assert labels.shape == (12, 10)
        assert np.array(Image.open(Path("out", row["overlay"]))).shape == (12, 10, 3)
        assert float(row["share"]) == pytest.approx(np.bincount(labels.flatten()).max() / labels.size, rel=1e-5)


def test_predict__logits_that_are_not_finite_leave_valid_json(vectors: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = torch.nn.Linear.forward
    monkeypatch.setattr(torch.nn.Linear, "forward", lambda self, x: forward(self, x) * float("nan"))
    assert run(["predict", vectors, "--input", "m0=1 1 1 1 1 1 1 1", "-o", "out", "--top", "2"]) == 0
    text = Path("out/predictions.jsonl").read_text(encoding="utf-8")
    line = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert line["label"] == ""
    assert line["probability"] is line["uncertainty"] is None
    assert table(Path("out"))[0]["probability"] == ""


def test_predict__names_of_samples_become_names_of_files(dense: str) -> None:
    write_pictures(Path("left"), "ab")
    Path("set.csv").write_text("id,m0\nx/1,left/a.png\nx:1,left/b.png\n", encoding="utf-8")
    assert run(["predict", dense, "--manifest", "set.csv", "-o", "out"]) == 0
    assert [row["map"] for row in table(Path("out"))] == ["maps/x_1.png", "maps/x_1-2.png"]


def test_predict__quantities_are_columns(tmp_path: Path) -> None:
    made = train_run(tmp_path, data={"dataset": {"name": "diabetes"}, "batch_size": 64}, method="monig")
    (first, *_) = robustmm.load(made, device="cpu").modalities
    numbers = " ".join(["0.5"] * first.shape[0])
    assert run(["predict", str(made), "--input", f"{first.name}={numbers}", "-o", "out"]) == 0
    (row,) = table(Path("out"))
    quantity = robustmm.load(made, device="cpu").classes[0]
    assert float(row[quantity]) > 0
    assert float(row[f"{quantity}_scale"]) > 0


def test_predict__prints_the_first_rows_of_many(vectors: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [" ".join([str(row)] * 8) for row in range(30)]
    Path("set.csv").write_text("\n".join(["m0", *lines]), encoding="utf-8")
    assert run(["predict", vectors, "--manifest", "set.csv", "-o", "out"]) == 0
    shown = capsys.readouterr().out
    assert "... and 10 more" in shown
    assert "set.csv:2" in shown
    assert len(table(Path("out"))) == 30


def test_predict__overwrites_when_asked_and_only_predictions(vectors: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["predict", vectors, "--input", "m0=1 1 1 1 1 1 1 1", "-o", "out"]
    assert run(arguments) == 0
    assert run(arguments) == 2
    assert "out is not empty; add --overwrite" in capsys.readouterr().err
    assert run([*arguments, "--overwrite"]) == 0
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("x", encoding="utf-8")
    assert run([*arguments[:-1], "mine", "--overwrite"]) == 2
    assert "holds no earlier predictions" in capsys.readouterr().err
    assert Path("mine/thesis.tex").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give samples in one way"),
        (["--input", "m0=1", "--folder", "m0=."], "give samples in one way"),
        (["--input", "m0"], "--input m0: expected NAME=VALUE, such as m0=..."),
        (["--input", "m9=1"], "--input m9=1: no modality 'm9'"),
        (["--input", "m0=1", "--input", "m0=2"], "m0 is given twice"),
        (["--input", "m0=1 2"], "m0: has shape (2,); expected (8,) (features)"),
        (["--folder", "m0=nowhere"], "m0: nowhere is not a folder"),
        (["--folder", "m0=empty"], "empty holds no file of a type that is read: .npy, .npz, .csv, .txt"),
        (["--folder", "m0=twice"], "a.npy and a.txt are files of one sample; keep one"),
        (["--manifest", "none.csv"], "none.csv:1 has no column of a modality (m0, m1); it has a, b"),
        (["--manifest", "hole.csv"], "hole.csv:3 has no modality at all: m0 are empty"),
        (["--manifest", "short.csv"], "short.csv has no row"),
        (["--manifest", "same.csv"], "same.csv:4 column id: 'a' stands already in line 2"),
        (["--manifest", "away.csv"], "m0: x.npy: there is no such file\nsample 'away.csv:2', m1: y.npy: there is no"),
        (["--input", "m0=1", "--adapter-option", "lr=1"], "--adapter-option needs --adapter NAME"),
    ],
)
def test_predict__refuses(vectors: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    Path("twice").mkdir()
    np.save("twice/a.npy", np.ones(8))
    Path("twice/a.txt").write_text("1", encoding="utf-8")
    Path("none.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    Path("hole.csv").write_text("id,m0\na,1\nb,\n", encoding="utf-8")
    Path("short.csv").write_text("m0\n", encoding="utf-8")
    Path("same.csv").write_text("id,m0\na,1\nb,1\na,1\n", encoding="utf-8")
    Path("away.csv").write_text("m0,m1\nx.npy,y.npy\n", encoding="utf-8")
    assert run(["predict", vectors, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_predict__adapts(tmp_path: Path) -> None:
    made = str(train_run(tmp_path, model={"fusion": {"name": "attention", "dim": 8, "heads": 2}}))
    Path("set.csv").write_text("m0,m1\n" + "1 2 3 4 5 6 7 8,8 7 6 5 4 3 2 1\n" * 4, encoding="utf-8")
    plain = ["predict", made, "--manifest", "set.csv"]
    assert run([*plain, "-o", "plain"]) == 0
    assert run([*plain, "-o", "adapted", "--adapter", "read", "--adapter-option", "lr=0.5", "--batch-size", "1"]) == 0
    assert table(Path("plain")) != table(Path("adapted"))
