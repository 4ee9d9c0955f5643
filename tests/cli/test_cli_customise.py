"""``robustmm customise`` in process: one real training of one combination, stand-ins for the rest."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_runs import write_config
from fake_training import use_fake_training

from robustmm.cli import run


@pytest.fixture
def made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    select = {"train": {"epochs": 1, "select": {"metric": "m0/accuracy"}}}
    config = write_config(tmp_path, method="modality_dropout", balancer="ogm", sampler="uniform", **select)
    assert run(["train", "-c", config, "--folder", "made"]) == 0
    capsys.readouterr()
    return Path("made")


def record(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "results.json").read_text())["protocols"]["customised"])


def test_customise__trains_a_model_for_a_combination_and_keeps_it(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["customise", "made", "--combinations", "m0"]
    assert run(arguments) == 0
    config = yaml.safe_load((made / "customised/m0/config.yaml").read_text())
    assert (config["data"]["modalities"], config["method"]["name"], config["balancer"]["name"]) == (
        ["m0"],
        "plain",
        "none",
    )
    assert (config["sampler"], config["train"]["select"]["metric"]) == (None, "mean/accuracy")
    assert (config["name"], config["seed"], config["train"]["epochs"]) == ("tiny_m0", 0, 1)
    (row,) = record(made)["rows"]
    assert (row["combination"], row["run"], row["samples"]) == ("m0", "customised/m0", 16)
    accuracy = {part: row[part]["accuracy"] for part in ("unified", "customised", "difference")}
    assert accuracy["difference"] == pytest.approx(accuracy["customised"] - accuracy["unified"])
    alone = json.loads((made / "customised/m0/results.json").read_text())["protocols"]["combinations"]["rows"][0]
    assert accuracy["customised"] == alone["metrics"]["accuracy"]
    assert record(made)["customised"] == {"method": "plain", "balancer": "none", "overrides": []}
    assert record(made)["method"] == "modality_dropout"
    shown = capsys.readouterr().out
    assert "tiny: one model for all, and one plain model for each combination, on test" in shown
    assert "mean of 1" in shown
    weights = (made / "customised/m0/checkpoints/best.safetensors").stat().st_mtime_ns
    assert run(arguments) == 0
    assert (made / "customised/m0/checkpoints/best.safetensors").stat().st_mtime_ns == weights
    assert run([*arguments, "--method", "modality_dropout"]) == 2
    assert capsys.readouterr().err == (
        "made/customised/m0 was trained with another configuration (method.name: plain, now modality_dropout); delete "
        "it to train it again\n"
    )


def test_customise__every_combination_in_a_table_and_a_csv(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_fake_training(monkeypatch, like=made)
    assert run(["customise", "made", "-o", "optimizer.lr=0.1"]) == 0
    rows = list(csv.DictReader((made / "eval/customised.csv").open()))
    assert [row["combination"] for row in rows] == ["m0", "m1", "m0+m1"]
    assert {row["customised/accuracy"] for row in rows} == {"0.55"}
    means = record(made)["means"]
    assert means["customised"]["accuracy"] == pytest.approx(0.55)
    assert means["difference"]["accuracy"] == pytest.approx(0.55 - means["unified"]["accuracy"])
    assert "mean of 3" in capsys.readouterr().out
    protocols = json.loads((made / "results.json").read_text())["protocols"]
    assert protocols["customised"]["fingerprint"] == protocols["combinations"]["fingerprint"]
    assert run(["report", "made", "--tables", "tables"]) == 0
    assert "unified/accuracy" in Path("tables/customised.md").read_text()


def test_customise__samples_that_would_be_left_with_nothing_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, data={"dataset": {"missing_rate": 0.3}}, train={"epochs": 1})
    assert run(["train", "-c", config, "--folder", "made"]) == 0
    asked = use_fake_training(monkeypatch, like=Path("made"))
    capsys.readouterr()
    assert run(["customise", "made"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["m0", "m1"]
    assert " training samples, such as 'train000" in lines[0]
    assert " test samples, such as 'test000" in lines[0]
    assert lines[0].endswith("leave the combination out (--combinations), or the samples out of the data set")
    assert asked == []
    assert not Path("made/customised").exists()
    run(["customise", "made", "--combinations", "m0+m1"])
    assert len(asked) == 1  # training begins


def test_customise__data_that_are_gone_are_told_at_once(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = use_fake_training(monkeypatch, like=made)
    assert run(["customise", "made", "-o", "data.dataset={name: tcga_breast, root: gone}"]) == 2
    assert "gone" in capsys.readouterr().err
    assert asked == []


def test_customise__another_test_part_is_refused(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_fake_training(monkeypatch)
    assert run(["customise", "made", "--combinations", "m1"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "m1: 'dataset' of the data is synthetic for the run and demo for made/customised/m1" in lines
    assert "m1: 16 test samples are scored for the run, 40 for made/customised/m1" in lines
    assert "customised" not in json.loads((made / "results.json").read_text())["protocols"]


def test_customise__a_failed_model_is_named(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_fake_training(monkeypatch, like=made)
    assert run(["customise", "made", "-o", "train.epochs=13", "--combinations", "m0,m1+m0"]) == 1
    said = capsys.readouterr().err
    assert "2 of 2 runs failed" in said
    assert "  m0+m1: RunFailed: loss 'task' is nan at step 3 (made/customised/m0+m1.log)" in said


def test_customise__says_what_is_wrong_before_anything_is_trained(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, error in (
        (["--combinations", "m7"], "combination 'm7': no modality 'm7'"),
        (["--method", "plian"], "method.name: unknown method 'plian' - did you mean 'plain'?"),
        (["-o", "train.epochs=0"], "train.epochs: "),
    ):
        assert run(["customise", "made", *arguments]) == 2
        assert error in capsys.readouterr().err
    (made / "DONE").unlink()
    assert run(["customise", "made"]) == 2
    assert capsys.readouterr().err == "made did not finish; its model cannot be held against others\n"
    assert run(["customise", str(tmp_path)]) == 2
    assert "is no run folder" in capsys.readouterr().err
    assert not (made / "customised").exists()
