"""`robustmm export`: the file, what is printed, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from used_runs import train_run

import robustmm
from robustmm.cli import run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(train_run(tmp_path_factory.mktemp("made")))


def test_export__writes_what_the_run_predicts(made: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", made, "--format", "torch"]) == 0
    shown = capsys.readouterr().out
    assert "random samples: 6 predictions of 3 combinations, largest difference of logits" in shown
    assert "real samples: 24 predictions of 3 combinations" in shown
    assert "m0, m1, presence -> logits, probabilities" in shown
    program = torch.export.load(Path(made, "export", "model.pt2")).module()
    own = robustmm.load(made, device="cpu").predict({"m1": torch.arange(8.0)})
    logits, _ = program(torch.zeros(1, 8), torch.arange(8.0)[None], torch.tensor([[False, True]]))
    torch.testing.assert_close(logits[0], own.logits)


def test_export__says_where_there_are_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{place} 1 2,{place} 3,{'ab'[place % 2]},{part}" for part in ("train", "test") for place in range(6)]
    Path("set.csv").write_text("\n".join(["one,two,label,split", *rows]), encoding="utf-8")
    vectors = {"one": {"kind": "vector"}, "two": {"kind": "vector"}}
    folder = train_run(tmp_path, data={"dataset": {"name": "manifest", "csv": "set.csv", "modalities": vectors}})
    Path("set.csv").unlink()
    capsys.readouterr()
    assert run(["export", str(folder), "--format", "torch", "-o", "a.pt2"]) == 0
    shown = capsys.readouterr().out
    assert "checked with random samples alone, test data are not there: set.csv" in shown
    assert "real samples" not in shown


def test_export__replaces_a_file_when_asked(made: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.pt2").write_text("mine", encoding="utf-8")
    assert run(["export", made, "--format", "torch", "-o", "a.pt2"]) == 2
    assert "a.pt2 is there already; add --overwrite" in capsys.readouterr().err
    assert Path("a.pt2").read_text(encoding="utf-8") == "mine"
    assert run(["export", made, "--format", "torch", "-o", "a.pt2", "--overwrite", "--batch", "2"]) == 0
    assert len(list(Path().iterdir())) == 1


def test_export__fails_and_keeps_nothing_where_logits_differ(
    made: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robustmm.use.export_check.TOLERANCE", -1.0)
    assert run(["export", made, "--format", "torch", "-o", "a.pt2"]) == 1
    assert "the exported file does not predict what the model predicts" in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_export__refuses_a_method_without_a_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train_run(tmp_path, method="cpm_nets")
    assert run(["export", str(folder), "--format", "torch"]) == 2
    assert "this run cannot be exported: cpm_nets finds the code of each sample" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "torch", "--opset", "18"], "--opset belongs to --format onnx"),
        (["--format", "torch", "--batch", "0"], "--batch 0: expected a number above 0, or 'dynamic'"),
        (["--format", "torch", "--batch", "many"], "--batch many: expected"),
        ([], "Missing option '--format'"),
        (
            ["--format", "onnx", "-o", "m.pt2"],
            "m.pt2: --format onnx writes files that end in .onnx; name it m.onnx, or use --format torch",
        ),
        (["--format", "torch", "-o", "m"], "m: --format torch writes files that end in .pt2; name it m.pt2\n"),
    ],
)
def test_export__refuses(made: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", made, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_export__names_the_extra(
    made: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert run(["export", made, "--format", "onnx"]) == 2
    assert "pip install 'robustmm[onnx]'" in capsys.readouterr().err
