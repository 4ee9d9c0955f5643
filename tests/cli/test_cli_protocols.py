"""``robustmm evaluate --protocol``: numbers that raw predictions give again, masks to share, passes to go on with."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_runs import in_child, write_config, write_plugins
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from robustmm.cli import run
from robustmm.engine.lock import locked
from robustmm.protocols.listing import PROTOCOLS

THREE = {"data": {"dataset": {"name": "synthetic", "modalities": 3, "samples": 48, "size": 8, "noise": 0.6}}}
SHORT = [
    *("-o", "evaluation.missing_rate.rates=[0.0, 0.5]", "-o", "evaluation.missing_rate.seeds=2"),
    *("-o", "evaluation.corruption.severities=[1, 5]", "-o", "evaluation.latency.repeats=3"),
]
EVERY = [word for name in PROTOCOLS for word in ("-p", name)]

#: A corruption that ends its process at a call whose number the environment names.
KILL = """
import os
from robustmm import Component, Corruption, Options, hookimpl

calls = 0

class Kill(Corruption):
    def corrupt(self, value, severity, generator, other):
        global calls
        calls += 1
        if calls == int(os.environ.get("KILL_AT_CALL", 0)):
            os.kill(os.getpid(), 9)
        return value + severity

@hookimpl
def robustmm_register_corruptions(register):
    register(Component("kill", Kill, Options, "Adds the severity.", "test"))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    config = write_config(folder, method="modality_dropout", **THREE)
    assert run(["train", "-c", config, "--folder", str(folder / "made")]) == 0
    return folder / "made"


@pytest.fixture
def made(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "made")
    return Path("made")


def protocols_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))["protocols"]
    return found


def raw_of(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "eval" / "predictions.npz") as file:
        return {name: file[name] for name in file.files}


def scores(logits: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """By scikit-learn, from raw predictions."""
    guess = logits.argmax(axis=1)
    return {
        "accuracy": accuracy_score(target, guess),
        "macro_accuracy": balanced_accuracy_score(target, guess),
        "macro_f1": f1_score(target, guess, average="macro"),
    }


def assert_same(row: dict[str, Any], logits: np.ndarray, target: np.ndarray) -> None:
    expected = scores(logits, target)
    assert {name: row["metrics"][name] for name in expected} == pytest.approx(expected)


def test_protocols__every_number_comes_again_from_raw_predictions(made: Path) -> None:
    assert run(["evaluate", "made", *EVERY, *SHORT]) == 0
    found, raw = protocols_of(made), raw_of(made)
    target, modalities = raw["target"], found["combinations"]["modalities"]
    assert set(found) == set(PROTOCOLS)
    for row in found["combinations"]["rows"]:
        assert_same(row, raw[f"combination/{row['combination']}|logits"], target)
    with np.load(made / "eval" / "masks.npz") as file:
        places = json.loads(str(file["header"]))["places"]
        flat = np.unpackbits(file["shown"], axis=1, count=len(target) * len(modalities)).astype(bool)
        masks = flat.reshape(len(places), len(target), len(modalities))
    for row, place, mask in zip(found["missing-rate"]["rows"], places, masks, strict=True):
        assert [row["pattern"], row["modality"], row["rate"], row["seed"]] == place
        names = ["+".join(np.array(modalities)[shown]) for shown in mask]
        logits = np.stack([raw[f"combination/{name}|logits"][place] for place, name in enumerate(names)])
        assert_same(row, logits, target)
        assert row["realised"]["overall"] == pytest.approx(1 - mask.mean())
        assert row["complete_share"] == pytest.approx(mask.all(axis=1).mean())
    for row in found["corruption"]["rows"]:
        place = f"corruption/{row['modality']}/{row['corruption']}/{row['severity']}@"
        view = next(name for name in raw if name.startswith(place))
        assert_same(row, raw[view], target)
    for row in found["calibration"]["rows"]:
        logits = torch.from_numpy(raw[f"combination/{row['combination']}|logits"]).double()
        nll = torch.nn.functional.cross_entropy(logits, torch.from_numpy(target))
        assert row["metrics"]["nll"] == pytest.approx(float(nll))
        assert sum(count for count, _, _ in row["bins"]) == len(target)


def test_protocols__each_has_its_own_files_and_a_table(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["evaluate", "made", *EVERY, *SHORT]) == 0
    shown = capsys.readouterr().out
    for name in PROTOCOLS:
        record = json.loads((made / "eval" / f"{name}.json").read_text(encoding="utf-8"))
        assert record == protocols_of(made)[name]
        with (made / "eval" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(record["rows"])
        assert {row["missing_policy"] for row in rows} == {"zero_feature"}
    for words in (
        "by missing rate",
        "while one modality is corrupted",
        "Expected accuracy",
        "Calibration",
        "Time, work",
    ):
        assert words in shown


def test_protocols__curves_and_expected_scores_follow_from_rows(made: Path) -> None:
    assert run(["evaluate", "made", "-p", "missing-rate", "-p", "expected", *SHORT]) == 0
    found = protocols_of(made)
    rows, curve = found["missing-rate"]["rows"], found["missing-rate"]["curves"]
    for point in curve:
        own = [row["metrics"]["accuracy"] for row in rows if row["rate"] == point["rate"]]
        assert point["draws"] == len(own) == 2
        assert point["metrics"]["accuracy"] == pytest.approx({"mean": np.mean(own), "sd": np.std(own, ddof=1)})
    complete = found["combinations"]["rows"][-1]["metrics"]
    assert [row["metrics"] for row in rows if row["rate"] == 0] == [complete, complete]
    table = {row["combination"]: row["metrics"]["accuracy"] for row in found["combinations"]["rows"]}
    for row in found["expected"]["rows"]:
        assert sum(row["weights"].values()) == pytest.approx(1)
        mean = sum(weight * table[name] for name, weight in row["weights"].items())
        assert row["metrics"]["accuracy"] == pytest.approx(mean)


def test_latency__fewer_modalities_are_less_work_and_no_more_memory(made: Path) -> None:
    assert run(["evaluate", "made", "-p", "latency", *SHORT, "-o", "evaluation.latency.batch_sizes=[1, 4]"]) == 0
    rows = protocols_of(made)["latency"]["rows"]
    work = {(row["combination"], row["batch_size"]): row["metrics"] for row in rows}
    assert len(work) == 14
    for size in (1, 4):
        one, two, three = (work[("+".join(names), size)] for names in (["m0"], ["m0", "m1"], ["m0", "m1", "m2"]))
        assert one["flops"] < two["flops"] < three["flops"]
        assert 0 < one["peak_memory_bytes"] <= two["peak_memory_bytes"] <= three["peak_memory_bytes"]
        assert 0 < one["median_ms"] <= one["p95_ms"]
    assert work[("m0", 4)]["flops"] == 4 * work[("m0", 1)]["flops"]


def test_protocols__nothing_is_predicted_twice(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["evaluate", "made", "-p", "missing-rate", "-p", "corruption", *SHORT]) == 0
    before = {path.name: path.read_bytes() for path in (made / "eval").iterdir() if path.is_file()}

    def fail(*_: object) -> None:
        raise AssertionError("predicted again")

    monkeypatch.setattr("robustmm.engine.record.Recorder.__call__", fail)
    assert run(["evaluate", "made", "-p", "missing-rate", "-p", "corruption", *SHORT]) == 0
    assert {path.name: path.read_bytes() for path in (made / "eval").iterdir() if path.is_file()} == before
    with pytest.raises(AssertionError, match="predicted again"):
        run(["evaluate", "made", "-p", "corruption", "-o", "evaluation.corruption.seed=1"])


def test_masks__of_one_run_measure_another(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, "other")
    assert run(["evaluate", "made", "-p", "missing-rate", *SHORT]) == 0
    assert run(["evaluate", "other", "-p", "missing-rate", "--masks", "made/eval/masks.npz"]) == 0
    mine, theirs = protocols_of(made)["missing-rate"], protocols_of(Path("other"))["missing-rate"]
    assert mine["masks"]["sha256"] == theirs["masks"]["sha256"]
    assert mine["rows"] == theirs["rows"]
    assert (made / "eval" / "masks.npz").read_bytes() == Path("other/eval/masks.npz").read_bytes()


def test_masks__of_other_samples_are_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(
        tmp_path, "few", method="plain", data={"dataset": {**THREE["data"]["dataset"], "samples": 40}}
    )
    assert run(["train", "-c", config, "--folder", "few"]) == 0
    assert run(["evaluate", "made", "-p", "missing-rate", *SHORT]) == 0
    capsys.readouterr()
    assert run(["evaluate", "few", "-p", "missing-rate", "--masks", "made/eval/masks.npz"]) == 2
    error = capsys.readouterr().err
    assert "evaluation.missing_rate.masks: the masks are of" in error
    assert "draw new masks" in error
    assert "missing-rate" not in protocols_of(Path("few"))


def test_protocols__a_killed_evaluation_goes_on_and_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    plugins = write_plugins(tmp_path, kill=KILL)
    shutil.copytree(made, "other")
    options = ["-p", "corruption", "-p", "missing-rate", *SHORT, "-o", "evaluation.corruption.corruptions=[kill]"]
    asked = ["--plugins-dir", plugins, "evaluate"]
    assert in_child([*asked, "made", *options], {"KILL_AT_CALL": "60"}, tmp_path / "out.txt") == -signal.SIGKILL
    assert list((made / "eval" / ".recording").glob("*/*.npz"))
    assert not (made / "eval" / "corruption.json").exists()
    assert in_child([*asked, "made", *options], {}, tmp_path / "out.txt") == 0
    assert in_child([*asked, "other", *options], {}, tmp_path / "out.txt") == 0
    for name in ("predictions.npz", "corruption.json", "missing-rate.csv", "masks.npz"):
        assert (made / "eval" / name).read_bytes() == (Path("other") / "eval" / name).read_bytes()
    assert not (made / "eval" / ".recording").exists()


def test_protocols__of_the_configuration_are_measured_after_training(tmp_path: Path) -> None:
    evaluation = {"protocols": ["combinations", "missing-rate"], "missing_rate": {"rates": [0.3], "seeds": 2}}
    config = write_config(tmp_path, evaluation=evaluation)
    assert run(["train", "-c", config, "--folder", "made"]) == 0
    assert set(protocols_of(Path("made"))) == {"combinations", "missing-rate"}


def test_protocols__maps_are_measured_alike(tmp_path: Path) -> None:
    dense = {
        "dataset": {"name": "synthetic", "modalities": 2, "samples": 16, "kind": "image", "dense": True, "size": 16}
    }
    encoders = {"default": {"name": "small_cnn", "widths": [4, 8], "full_size": True}}
    config = write_config(tmp_path, method="modality_dropout", data=dense, model={"encoders": encoders})
    assert run(["train", "-c", config, "--folder", "made"]) == 0
    chosen = [word for name in PROTOCOLS for word in ("-p", name)]
    assert run(["evaluate", "made", *chosen, *SHORT]) == 0
    found, raw = protocols_of(Path("made")), raw_of(Path("made"))
    for row in found["combinations"]["rows"]:
        counts = raw[f"combination/{row['combination']}|confusion"].sum(axis=0)
        assert row["metrics"]["pixel_accuracy"] == pytest.approx(np.trace(counts) / counts.sum())
    assert found["calibration"]["rows"][0]["metrics"]["ece"] is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "train.epochs=3"], "a trained run stays as it is; change keys below evaluation"),
        (
            ["-p", "corruption", "-o", "evaluation.corruption.modalities=[m9]"],
            "evaluation.corruption.modalities: no modality 'm9' (m0, m1, m2)",
        ),
        (["-p", "corruption", "-o", "evaluation.corruption.corruptions=[jpeg]"], "jpeg fits none of the modalities"),
        (
            ["-p", "expected", "-o", "evaluation.expected.drop={m9: 0.5}"],
            "evaluation.expected.drop.m9: no such modality",
        ),
        (["-p", "missing-rate", "-o", "evaluation.missing_rate.rates=[1.0]"], "evaluation.missing_rate.rates"),
        (["-p", "missing-rate", "--masks", "a.npz", "-o", "evaluation.missing_rate.seeds=3"], "leave one of them out"),
        (["-p", "missing-rate", "--masks", "none.npz"], "none.npz cannot be read as a mask file"),
        (["-p", "nothing"], "'nothing' is not one of"),
    ],
)
def test_protocols__mistake_ends_with_2(made: Path, options: list[str], message: str, capsys) -> None:
    capsys.readouterr()
    assert run(["evaluate", "made", *options]) == 2
    assert message in capsys.readouterr().err


def own_data(folder: Path, rows: list[str]) -> str:
    """A manifest of two vectors, as a configuration."""
    (folder / "samples.csv").write_text("id,a,b,label,split\n" + "\n".join(rows) + "\n", encoding="utf-8")
    modalities = {"a": {"kind": "vector"}, "b": {"kind": "vector"}}
    dataset = {"name": "manifest", "csv": str(folder / "samples.csv"), "modalities": modalities}
    return write_config(folder, data={"dataset": dataset})


def rows_of(sign: int, *, cat: str = "cat", seed: int = 0) -> list[str]:
    """Two classes that both vectors tell apart; of test samples values times ``sign``."""
    draw = np.random.default_rng(seed)
    rows = []
    for number in range(40):
        split = "test" if number % 4 == 0 else "train"
        centre = 2.0 * (1 if number % 2 else -1) * (sign if split == "test" else 1)
        values = [" ".join(f"{value:.3f}" for value in centre + 0.3 * draw.standard_normal(2)) for _ in range(2)]
        rows.append(f"s{number},{values[0]},{values[1]},{cat if (number // 4) % 2 else 'dog'},{split}")
    return rows


def test_protocols__other_values_under_the_same_names_are_predicted_anew(tmp_path: Path) -> None:
    config = own_data(tmp_path, rows_of(1))
    assert run(["train", "-c", config, "--folder", "made"]) == 0
    assert run(["evaluate", "made", "-p", "missing-rate", *SHORT]) == 0
    before = raw_of(Path("made"))
    own_data(tmp_path, rows_of(-3))
    with pytest.warns(
        UserWarning, match="missing-rate in results.json .* were measured with other weights or other test"
    ):
        assert run(["evaluate", "made"]) == 0
    after = raw_of(Path("made"))
    assert not np.allclose(before["combination/a+b|logits"], after["combination/a+b|logits"])
    found = protocols_of(Path("made"))
    assert found["combinations"]["fingerprint"] != found["missing-rate"]["fingerprint"]


def test_protocols__one_protocol_on_other_data_measures_the_combinations_anew(tmp_path: Path) -> None:
    config = own_data(tmp_path, rows_of(1))
    assert run(["train", "-c", config, "--folder", "made"]) == 0
    own_data(tmp_path, rows_of(-3))
    assert run(["evaluate", "made", "-p", "calibration"]) == 0
    found = protocols_of(Path("made"))
    assert found["combinations"]["fingerprint"] == found["calibration"]["fingerprint"]


def test_protocols__data_with_other_classes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = own_data(tmp_path, rows_of(1))
    assert run(["train", "-c", config, "--folder", "made"]) == 0
    before = (Path("made") / "checkpoints" / "model.json").read_bytes()
    own_data(tmp_path, rows_of(1, cat="zebra"))
    capsys.readouterr()
    assert run(["evaluate", "made"]) == 2
    assert "was trained on the classes cat, dog, the data set now has dog, zebra" in capsys.readouterr().err
    assert (Path("made") / "checkpoints" / "model.json").read_bytes() == before


def test_protocols__two_evaluations_of_one_run_at_once_are_refused(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(made / "config.yaml", "held by the test"):
        capsys.readouterr()
        assert run(["evaluate", "made", "-p", "expected"]) == 2
        assert "made is in use: another evaluation of this run is at work" in capsys.readouterr().err
    assert run(["evaluate", "made", "-p", "expected"]) == 0


def test_protocols__a_deleted_result_file_comes_back_with_every_protocol(made: Path) -> None:
    assert run(["evaluate", "made", "-p", "missing-rate", *SHORT]) == 0
    before = protocols_of(made)
    (made / "results.json").unlink()
    assert run(["evaluate", "made", "-p", "expected"]) == 0
    assert {name: protocols_of(made)[name] for name in before} == before


def test_protocols__print_what_was_asked_for(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "made", "-p", "missing_rate", "-p", "expected", *SHORT]) == 0
    capsys.readouterr()
    assert run(["evaluate", "made", "-p", "expected"]) == 0
    shown = capsys.readouterr().out
    assert "Expected accuracy" in shown
    assert "by missing rate" not in shown
    assert "m0+m1" not in shown
