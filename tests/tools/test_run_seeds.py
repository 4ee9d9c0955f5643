from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from robustmm.sweep.plan import Member, Plan, settle_plan

ROOT = Path(__file__).parents[2]


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


def _plan(names: tuple[str, ...], seeds: int) -> Plan:
    return Plan(
        tuple(Member(f"{name}/s{seed}", name, seed, f"{name}.yaml", ()) for seed in range(seeds) for name in names)
    )


def test_gather__takes_the_score_that_is_asked_for(tmp_path: Path) -> None:
    plan = _plan(("plain",), seeds=1)
    _finish(tmp_path / "plain/s0", {"a": 0.5, "a+b": 1.0})
    assert tool.gather(plan, tmp_path)["plain"][0] == tool.Scores(0.5, 0.75, 0.5, 1.0, {"a": 0.5, "a+b": 1.0})
    dice = tool.gather(plan, tmp_path, "dice")["plain"][0]
    assert dice == tool.Scores(0.5, 0.9, 0.8, 0.7, {"a": pytest.approx(2 / 3), "a+b": 1.0})


def test_tables__mean_and_deviation_over_finished_seeds(tmp_path: Path) -> None:
    _finish(tmp_path / "plain/s0", {"a": 0.1, "a+b": 0.5})
    _finish(tmp_path / "drop/s0", {"a": 0.3, "a+b": 0.5})
    _finish(tmp_path / "plain/s1", {"a": 0.3, "a+b": 0.7}, validation=0.7)
    results = tool.gather(_plan(("plain", "drop", "none"), seeds=2), tmp_path)
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


def test_main__sweeps_and_prints_what_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []
    out = tmp_path / "out"

    def sweep(command: list[str], **_: object) -> SimpleNamespace:
        asked.append(command)
        settle_plan(out, _plan(("plain", "drop", "of another call"), seeds=1), extend=True)
        _finish(out / "plain/s0", {"a": 0.1, "a+b": 0.5})
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr(subprocess, "run", sweep)
    arguments = ["plain.yaml", "drop.yaml", "--seeds=1", f"--out={out}", "--combinations", "--vary=a+1", "-o", "b=2"]
    monkeypatch.setattr(sys, "argv", ["run_seeds.py", *arguments])
    tool.main()
    assert asked[0][3:] == [
        *("sweep", "plain.yaml", "drop.yaml", "--seeds", "1", "--folder", str(out), "--extend"),
        *("--vary", "a+1", "-o", "b=2"),
    ]
    lines = capsys.readouterr().out.splitlines()
    assert "| plain | 1 | 50.00 | 30.00 | 10.00 | 50.00 | - |" in lines
    assert "| drop | none finished | | | | | |" in lines
    assert "| a | 10.00 | - |" in lines
    assert not any("of another call" in line for line in lines)


def test_main__ends_with_the_sweep_where_nothing_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=2))
    monkeypatch.setattr(sys, "argv", ["run_seeds.py", "nowhere.yaml", f"--out={tmp_path}"])
    with pytest.raises(SystemExit) as caught:
        tool.main()
    assert caught.value.code == 2
