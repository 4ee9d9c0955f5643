from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from robustmm.config.load import load_config
from robustmm.plugin_manager import get_plugins

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "plain_pothole.yaml"


def _load() -> ModuleType:
    """The tool, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("run_seeds", ROOT / "tools" / "run_seeds.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their annotations up there
    spec.loader.exec_module(module)
    return module


tool = _load()


def _finish(folder: Path, scores: dict[str, float], validation: float = 0.5) -> None:
    """A finished run that measured ``scores``, of which the last is the complete combination."""
    values = list(scores.values())
    record = {
        "score": "iou",
        "selection": {"value": validation},
        "rows": [
            {"combination": name, "metrics": {"iou": iou, "dice": 2 * iou / (1 + iou)}} for name, iou in scores.items()
        ],
        "aggregates": {
            "mean": {"iou": sum(values) / len(values), "dice": 0.9},
            "worst": {"iou": min(values), "dice": 0.8},
            "complete": {"iou": values[-1], "dice": 0.7},
        },
    }
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"protocols": {"combinations": record}}))
    (folder / "DONE").touch()


def _overrides(command: list[str]) -> list[str]:
    return [after for before, after in pairwise(command) if before == "-o"]


def _members(root: Path, names: tuple[str, ...], seeds: int) -> list[Any]:
    return [
        tool.Member(Path(f"{name}.yaml"), seed, root / name / f"s{seed}") for seed in range(seeds) for name in names
    ]


def test_command__customised_model_has_its_modalities_alone() -> None:
    command = tool.Member(CONFIG, 1, Path("here"), "rgb+disparity").command(["train.epochs=2"], ["model.x=a,b"])
    overrides = _overrides(command)
    assert overrides == [
        "seed=1",
        "train.epochs=2",
        "model.x=b",
        "data.modalities=[rgb, disparity]",
        "evaluation.combinations=[rgb+disparity]",
    ]


def test_command__of_a_customised_model_is_a_valid_configuration() -> None:
    command = tool.Member(CONFIG, 0, Path("here"), "disparity").command([], [])
    overrides = _overrides(command)
    config = load_config([CONFIG], overrides, get_plugins().registry).config
    assert config.data.modalities == ("disparity",)
    assert config.evaluation.combinations == ("disparity",)


def test_customised_members__are_one_per_seed_and_measured_combination(tmp_path: Path) -> None:
    members = _members(tmp_path, ("plain", "drop"), seeds=2)
    assert tool.customised_members(CONFIG, members, tmp_path) == []
    _finish(members[1].folder, {"a": 0.1, "b": 0.2, "a+b": 0.3})
    made = tool.customised_members(CONFIG, members, tmp_path)
    assert [(one.seed, one.combination) for one in made] == [(s, name) for s in (0, 1) for name in ("a", "b", "a+b")]
    assert len({one.folder for one in made}) == 6
    assert made[2].folder == tmp_path / "plain_pothole_customised" / "a+b" / "s0"


def test_gather_customised__joins_a_seed_when_all_of_its_runs_finished(tmp_path: Path) -> None:
    members = [tool.Member(CONFIG, seed, tmp_path / f"{seed}{c}", c) for seed in (0, 1) for c in ("a", "b", "a+b")]
    for member, iou, validation in zip(members, (0.2, 0.5, 0.8, 0.1, 0.1), (0.3, 0.4, 0.8, 0, 0), strict=False):
        _finish(member.folder, {member.combination: iou}, validation)  # the last run of seed 1 is missing
    joined = tool.gather_customised(members)
    assert list(joined) == [0]
    assert joined[0].combinations == {"a": 0.2, "b": 0.5, "a+b": 0.8}
    assert (joined[0].validation, joined[0].mean) == pytest.approx((0.5, 0.5))
    assert (joined[0].worst, joined[0].complete) == (0.2, 0.8)


def test_gather__takes_the_score_that_is_asked_for(tmp_path: Path) -> None:
    members = _members(tmp_path, ("plain",), seeds=1)
    _finish(members[0].folder, {"a": 0.5, "a+b": 1.0})
    assert tool.gather(members)["plain"][0] == tool.Scores(0.5, 0.75, 0.5, 1.0, {"a": 0.5, "a+b": 1.0})
    dice = tool.gather(members, "dice")["plain"][0]
    assert dice == tool.Scores(0.5, 0.9, 0.8, 0.7, {"a": pytest.approx(2 / 3), "a+b": 1.0})


def test_tables__mean_and_deviation_over_finished_seeds(tmp_path: Path) -> None:
    members = _members(tmp_path, ("plain", "drop", "none"), seeds=2)
    _finish(members[0].folder, {"a": 0.1, "a+b": 0.5})
    _finish(members[1].folder, {"a": 0.3, "a+b": 0.5})
    _finish(members[3].folder, {"a": 0.3, "a+b": 0.7}, validation=0.7)
    results = tool.gather(members)
    assert tool.table(results, "plain").splitlines()[2:] == [
        "| plain | 2 | 60.00 ± 14.14 | 40.00 ± 14.14 | 20.00 ± 14.14 | 60.00 ± 14.14 | - |",
        "| drop | 1 | 50.00 | 40.00 | 30.00 | 50.00 | 10.00 |",
        "| none | none finished | | | | | |",
    ]
    assert tool.combination_table(results).splitlines() == [
        "| combination | plain | drop | none |",
        "|---|---|---|---|",
        "| a | 20.00 ± 14.14 | 30.00 | - |",
        "| a+b | 60.00 ± 14.14 | 50.00 | - |",
    ]


def test_main__sets_customised_models_beside_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[list[str]] = []

    def train(command: list[str], **_: object) -> None:
        calls.append(command)
        folder = Path(command[command.index("--folder") + 1])
        alone = [text for text in command if text.startswith("evaluation.combinations")]
        _finish(folder, {folder.parent.name: 0.6} if alone else {"a": 0.1, "b": 0.2, "a+b": 0.6})

    monkeypatch.setattr(subprocess, "run", train)
    arguments = [
        "plain.yaml",
        "--seeds=2",
        "--jobs=1",
        f"--out={tmp_path}",
        "--combinations",
        "--customised=plain.yaml",
    ]
    monkeypatch.setattr(sys, "argv", ["run_seeds.py", *arguments])
    tool.main()
    assert len(calls) == 2 + 2 * 3
    lines = capsys.readouterr().out.splitlines()
    assert "| customised | 2 | 50.00 ± 0.00 | 60.00 ± 0.00 | 60.00 ± 0.00 | 60.00 ± 0.00 | 30.00 ± 0.00 |" in lines
    assert "| b | 20.00 ± 0.00 | 60.00 ± 0.00 |" in lines
    tool.main()
    assert len(calls) == 8  # finished runs are kept
