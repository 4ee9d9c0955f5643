"""``robustmm explain`` names who acts at each place of the step, and the file and line."""

from __future__ import annotations

import linecache
import re
from pathlib import Path

import pytest
from cli_runs import STOP, write_config, write_plugins

from robustmm.cli import run

PLACES = [
    "dataset",
    "train part",
    "validation part",
    "test part",
    "on_epoch_start",
    "masks",
    "updates",
    "encoder of m0",
    "encoder of m1",
    "trunk",
    "missing_policy",
    "fusion",
    "head",
    "modulate_features",
    "method.on_fit_start",
    "method.train_output",
    "method.forward",
    "method.readout",
    "method.losses",
    "method.on_epoch_end",
    "task loss",
    "weigh",
    "backward",
    "modulate_gradients",
    "clip",
    "optimizer",
    "schedule",
    "selection",
]


def explained(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, tuple[str, str]]:
    """Place -> (who acts, file:line)."""
    assert run([*arguments]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    acts, file = header.index("acts"), header.index("file")
    return {line[:acts].strip(): (line[acts:file].strip(), line[file:].strip()) for line in lines}


def test_explain__names_every_place_in_the_order_of_the_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, method="dmrnet", balancer="ogm_ge", model={"fusion": "film"})
    found = explained(capsys, "explain", "-c", config, "-o", "train.clip_norm=2", "-o", "schedule=cosine")
    assert list(found) == PLACES
    acting = {place: acts for place, (acts, _) in found.items()}
    assert acting["dataset"] == "synthetic"
    assert acting["validation part"] == "16 samples, the data set's own"
    assert acting["encoder of m0"] == "mlp"
    assert acting["fusion"] == "film"
    assert acting["method.losses"] == "DMRNet.losses"
    assert acting["method.forward"] == "Method.forward (default)"
    assert acting["weigh"] == "Balancer.weigh (default)"
    assert "(default)" not in acting["modulate_gradients"]
    assert acting["clip"] == "norm 2.0"
    assert acting["selection"] == "mean/accuracy (max) on validation"


def test_explain__files_and_lines_hold_what_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = explained(capsys, "explain", "-c", write_config(tmp_path, method="mmanet", balancer="ogm_ge"))
    checked = 0
    for place, (acts, home) in found.items():
        if not home:
            continue
        path, _, line = home.rpartition(":")
        text = linecache.getline(path, int(line))
        assert re.match(r"\s*(@|def |class )", text), (place, home, text)
        if "." in acts:
            name = acts.removesuffix(" (default)").split(".")[1]
            assert f"def {name}(" in text
        checked += 1
    assert checked >= 20


def test_explain__shows_the_file_of_a_users_plugin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugins = write_plugins(tmp_path, stop=STOP)
    found = explained(capsys, "--plugins-dir", plugins, "explain", "-c", write_config(tmp_path, schedule="stop"))
    line = STOP.splitlines().index("class Stop(Schedule):") + 1
    assert found["schedule"] == ("stop", f"plugins/stop.py:{line}")


def test_explain__writes_nothing_and_shows_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path)
    before = set(tmp_path.rglob("*"))
    explained(capsys, "explain", "-c", config)
    assert set(tmp_path.rglob("*")) == before
    assert run(["explain", "-c", config, "-o", "method=plian"]) == 2
    assert "did you mean 'plain'" in capsys.readouterr().err
