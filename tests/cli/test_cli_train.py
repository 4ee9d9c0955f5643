"""``robustmm train`` from the command line to the run folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_runs import BROKEN, TINY, equal_runs, records, results, write_config, write_plugins
from safetensors.torch import load_file

from robustmm.cli import run
from robustmm.config.capabilities import find_misfits, provided
from robustmm.plugin_manager import get_plugins
from robustmm.registry import KINDS

REGISTRY = get_plugins().registry
METHODS, BALANCERS = REGISTRY.names("method"), REGISTRY.names("balancer")
TASK = ("task", "classification")
#: Makes the terms of a method act within two epochs.
EAGER = {
    "mmanet": {"warmup_epochs": 1, "mining_first": 0, "mining_last": 0},
    "dmrnet": {"mining_first": 0, "mining_last": 0, "hard_from": 1},
}
FILES = {
    "DONE",
    "checkpoints/MODEL_CARD.md",
    "checkpoints/best.json",
    "checkpoints/best.safetensors",
    "checkpoints/last.json",
    "checkpoints/last.safetensors",
    "checkpoints/model.json",
    "config.source/0-tiny.yaml",
    "config.yaml",
    "env.json",
    "eval/combinations.csv",
    "eval/combinations.json",
    "eval/predictions.npz",
    "metrics.jsonl",
    "report.html",
    "results.json",
    "train.log",
}


def data(**options: Any) -> dict[str, Any]:
    return {"dataset": {**TINY["data"]["dataset"], **options}}


# Every method with every balancer


def fits(method: str, balancer: str) -> bool:
    """Whether the components allow a pair in classification."""
    chosen = [(kind, REGISTRY.get(kind, name)) for kind, name in (("method", method), ("balancer", balancer), TASK)]
    others = [kind for kind in KINDS if kind not in ("method", "balancer", "task")]
    assumed = {capability for kind in others for one in REGISTRY.all(kind) for capability in provided(kind, one)}
    return not find_misfits(chosen, assumed)


#: Every pair for two modalities; for other numbers each method without balancing and each balancer on plain training.
PAIRS = [
    (method, balancer, modalities)
    for method in METHODS
    for balancer in BALANCERS
    for modalities in (1, 2, 3, 4)
    if fits(method, balancer) and (modalities == 2 or balancer == "none" or method == "plain")
]


@pytest.mark.parametrize(("method", "balancer", "modalities"), PAIRS)
def test_train__runs_every_method_with_every_balancer(
    tmp_path: Path, method: str, balancer: str, modalities: int
) -> None:
    config = write_config(
        tmp_path,
        data=data(modalities=modalities, missing_rate=0.2),
        method={"name": method, **_eager(method)},
        balancer=balancer,
        callbacks=["jsonl"],
    )
    assert run(["train", "-c", config, "--folder", "made"]) == 0
    record = results(Path("made"))
    assert len(record["rows"]) == 2**modalities - 1
    assert (record["method"], record["balancer"]) == (method, balancer)
    assert 0 <= record["aggregates"]["worst"]["accuracy"] <= record["aggregates"]["mean"]["accuracy"] <= 1


def _eager(method: str) -> dict[str, Any]:
    options = REGISTRY.get("method", method).options
    eager = {key: value for key, value in EAGER.get(method, {}).items() if key in options.model_fields}
    return {**(options.contract_example() or {}), **eager}


# The run folder


def test_train__fills_the_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "-c", write_config(tmp_path)]) == 0
    (folder,) = Path("runs/tiny").iterdir()
    assert folder.name.endswith("-s0")
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {file for file in files if not file.startswith("tb/")} == FILES
    assert any(file.startswith("tb/events") for file in files)
    for path in folder.rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert json.loads((folder / "env.json").read_text())["versions"]["torch"] in str(torch.__version__)
    assert run(["train", "-c", str(folder / "config.yaml"), "--folder", "again"]) == 0
    assert equal_runs(folder, Path("again"))
    shown = capsys.readouterr()
    assert f"report      {folder / 'report.html'}" in shown.out
    assert "epoch   1  step      8  loss" in shown.err


def test_train__selects_on_validation_and_says_so(tmp_path: Path) -> None:
    assert run(["train", "-c", write_config(tmp_path, train={"epochs": 3}), "--folder", "made"]) == 0
    selection = results(Path("made"))["selection"]
    epochs = records(Path("made"), "epoch")
    assert (selection["part"], selection["metric"]) == ("validation", "mean/accuracy")
    best = max(epochs, key=lambda record: (record["validation/mean/accuracy"], -record["epoch"]))
    assert (selection["epoch"], selection["value"]) == (best["epoch"], best["validation/mean/accuracy"])
    assert results(Path("made"))["split"] == "test"


def test_train__same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    config = write_config(tmp_path, method="dmrnet", balancer="ogm_ge")
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run(["train", "-c", config, "-o", f"seed={seed}", "--folder", folder]) == 0
    assert equal_runs(Path("a"), Path("b"))
    a, c = (load_file(f"{folder}/checkpoints/last.safetensors") for folder in "ac")
    assert any(not torch.equal(value, c[name]) for name, value in a.items() if "weight" in name)


def test_train__trains_on_a_manifest_with_empty_cells(tmp_path: Path) -> None:
    lines = ["gas,heat,label,split"]
    for number in range(36):
        label, split = number % 2, ("train", "val", "test")[number % 3]
        gas = f"{label - 0.5} {number / 36}" if number % 5 else ""
        lines.append(f"{gas},{number / 18} {label},{'live' if label else 'fake'},{split}")
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    modalities = {"gas": {"kind": "vector"}, "heat": {"kind": "vector"}}
    config = write_config(tmp_path, data={"dataset": {"name": "manifest", "csv": "own.csv", "modalities": modalities}})
    assert run(["train", "-c", config, "--folder", "made"]) == 0
    gas, heat, both = results(Path("made"))["rows"]
    assert (gas["combination"], heat["combination"], both["combination"]) == ("gas", "heat", "gas+heat")
    assert (gas["excluded"], heat["excluded"], both["excluded"]) == (3, 0, 0)
    assert (gas["samples"], both["samples"], both["incomplete"]) == (9, 12, 3)


def test_train__spoofing_selects_by_acer(tmp_path: Path) -> None:
    task = {"name": "classification", "live_class": "class0"}
    assert run(["train", "-c", write_config(tmp_path, data=data(classes=2), task=task), "--folder", "made"]) == 0
    record = results(Path("made"))
    assert record["selection"]["metric"] == "mean/acer"
    assert record["score"] == "acer"
    assert record["directions"]["acer"] == "min"
    best = min(line["validation/mean/acer"] for line in records(Path("made"), "epoch"))
    assert record["selection"]["value"] == best
    for row in record["rows"]:
        values = row["metrics"]
        assert values["acer"] == pytest.approx((values["apcer"] + values["bpcer"]) / 2)
    assert "acer" in Path("made/eval/combinations.csv").read_text().splitlines()[0].split(",")


# Dry runs


@pytest.mark.parametrize("policy", REGISTRY.names("missing_policy"))
@pytest.mark.parametrize("fusion", REGISTRY.names("fusion"))
def test_dry_run__works_for_every_policy_and_fusion_and_writes_nothing(
    tmp_path: Path, policy: str, fusion: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, data=data(modalities=3), model={"fusion": fusion, "missing_policy": policy})
    before = set(tmp_path.rglob("*"))
    assert run(["train", "-c", config, "--dry-run"]) == 0
    assert set(tmp_path.rglob("*")) == before
    text = "tiny: a training step and an evaluation batch over 7 combinations work (32 train, 16 validation, 16 test"
    assert text in capsys.readouterr().out


# Exit codes


def test_train__shows_every_mistake_and_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, method="plian", optimizer={"name": "adamw", "lrr": 1}, train={"epochs": 0})
    assert run(["train", "-c", config]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    for text in ("did you mean 'plain'", "did you mean 'lr'", "train.epochs"):
        assert text in shown
    assert len(shown.splitlines()) == 3
    assert not Path("runs").exists()


def test_train__missing_data_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = {"name": "manifest", "csv": "nowhere.csv", "modalities": {"rgb": {"kind": "vector"}}}
    assert run(["train", "-c", write_config(tmp_path, data={"dataset": manifest})]) == 2
    shown = capsys.readouterr().err
    assert "nowhere.csv" in shown
    assert "Traceback" not in shown


def test_train__non_finite_loss_ends_with_1_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugins = write_plugins(tmp_path, broken=BROKEN)
    config = write_config(tmp_path, method="broken")
    assert run(["--plugins-dir", plugins, "train", "-c", config, "--folder", "made"]) == 1
    shown = capsys.readouterr().err
    assert "non-finite loss at step 3 (epoch 0): extra = nan; combinations in the batch: " in shown
    assert "Traceback" not in shown
    failed = Path("made/FAILED").read_text()
    assert "Traceback" in failed
    assert "RunFailed: non-finite loss at step 3" in failed
    assert not Path("made/DONE").exists()
    assert records(Path("made"))[-1] == {"kind": "end", "step": 3, "status": "failed"}
    assert Path("made/train.log").read_text().splitlines()[-1].startswith("failed at step 3")


def test_train__plugin_clash_ends_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugins = write_plugins(tmp_path, one=BROKEN, two=BROKEN)
    assert run(["--plugins-dir", plugins, "train", "-c", write_config(tmp_path)]) == 3
    shown = capsys.readouterr().err
    assert "method 'broken' is offered by" in shown
    assert "one.py" in shown
    assert "two.py" in shown


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("train.select.metric=mena", "no 'mena' - did you mean 'mean'?"),
        ("train.select.metric=mean/acuracy", "no metric 'acuracy' - did you mean 'accuracy'?"),
        ("model.encoders.default=small_cnn", "encoder 'small_cnn' takes"),
        ("task={name: classification, live_class: alive}", "task.live_class: 'alive'"),
        ("evaluation.combinations=[m0, m7]", "m7"),
        ("data.modalities=[m0, m9]", "m9"),
    ],
)
def test_train__what_only_the_run_can_know_ends_with_2(
    tmp_path: Path, override: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "-c", write_config(tmp_path), "-o", override, "--dry-run"]) == 2
    shown = capsys.readouterr().err
    assert text in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("train.strategy=ddp_spawn", "strategy ddp_spawn, precision 32 does not work here: To spawn processes"),
        ("train.strategy=nope", "You selected an invalid strategy name"),
        ("train.devices=5000", "train.devices: 5000 processes on a CPU with"),
    ],
)
def test_train__devices_that_cannot_be_had_end_with_2(
    tmp_path: Path, override: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "-c", write_config(tmp_path), "-o", override]) == 2
    assert text in capsys.readouterr().err
    assert not Path("runs").exists()


# Folders


def test_train__full_folder_needs_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, callbacks=["jsonl"], train={"epochs": 1})
    assert run(["train", "-c", config, "--folder", "made"]) == 0
    assert run(["train", "-c", config, "--folder", "made"]) == 2
    assert "made is not empty; add --resume to continue it, or --overwrite to replace it" in capsys.readouterr().err
    Path("made/old").touch()
    assert run(["train", "-c", config, "--folder", "made", "--overwrite"]) == 0
    assert not Path("made/old").exists()


def test_train__overwrites_nothing_but_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos").mkdir()
    Path("photos/cat.png").touch()
    assert run(["train", "-c", write_config(tmp_path), "--folder", "photos", "--overwrite"]) == 2
    assert "does not look like a run folder" in capsys.readouterr().err
    assert Path("photos/cat.png").exists()


# Precision and processes


def test_train__bf16_trains_on_a_cpu(tmp_path: Path) -> None:
    assert run(["train", "-c", write_config(tmp_path, train={"precision": "bf16-mixed"}), "--folder", "made"]) == 0
    assert "precision bf16-mixed" in Path("made/train.log").read_text()
    assert not results(Path("made"))["degenerate"]
    assert results(Path("made"))["aggregates"]["complete"]["accuracy"] > 0.25


def test_train__16_mixed_on_a_cpu_says_that_it_is_bf16(tmp_path: Path) -> None:
    config = write_config(tmp_path, train={"precision": "16-mixed"})
    with pytest.warns(UserWarning, match="fp16 is not supported on CPU. Using `precision='bf16-mixed'` instead"):
        assert run(["train", "-c", config, "--folder", "made"]) == 0
    assert "precision bf16-mixed" in Path("made/train.log").read_text()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="more processes than cores are refused")
def test_train__two_processes_do_as_one_with_twice_the_batch(tmp_path: Path) -> None:
    config = write_config(tmp_path, train={"epochs": 3})
    arguments = [sys.executable, "-m", "robustmm", "train", "-c", config]
    two = ["-o", "train.devices=2", "-o", "train.strategy=ddp", "--folder", "two"]
    done = subprocess.run(
        arguments + two, capture_output=True, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("weights of epoch") == 1
    assert run(["train", "-c", config, "-o", "data.batch_size=16", "--folder", "one"]) == 0
    assert [record["epoch"] for record in records(Path("two"), "epoch")] == [0, 1, 2]
    assert [row["samples"] for row in results(Path("two"))["rows"]] == [16, 16, 16]
    for one, both in zip(records(Path("one"), "epoch"), records(Path("two"), "epoch"), strict=True):
        assert both["validation/mean/accuracy"] == pytest.approx(one["validation/mean/accuracy"], abs=0.05)
    a, b = (load_file(f"{folder}/checkpoints/last.safetensors") for folder in ("one", "two"))
    weights = [name for name in a if name.startswith("/weights/") and a[name].is_floating_point()]
    assert weights
    for name in weights:
        torch.testing.assert_close(a[name], b[name], atol=2e-3, rtol=0)


def test_train__in_channels_last_gives_the_same_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = write_config(tmp_path, data=data(kind="image"), model=None)
    scores = []
    for last in ("false", "true"):
        folder = tmp_path / last
        options = ["-o", f"train.channels_last={last}", "--folder", str(folder)]
        assert run(["train", "-c", str(config), *options]) == 0
        record = json.loads((folder / "results.json").read_text())["protocols"]["combinations"]
        scores.append([row["metrics"]["accuracy"] for row in record["rows"]])
    assert scores[0] == pytest.approx(scores[1], abs=0.05)
