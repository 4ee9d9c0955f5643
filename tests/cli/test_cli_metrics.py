"""Metric plugins through the command line: in the results, in selection, and names that clash."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from cli_runs import records, results, write_config

from robustmm.cli import run

METRICS = ["brier", "nll", "aurc", {"name": "torchmetrics", "metric": "MulticlassMatthewsCorrCoef", "label": "mcc"}]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_train__writes_plugin_metrics_and_selects_the_smallest_nll(tmp_path: Path) -> None:
    config = write_config(
        tmp_path,
        train={"epochs": 3, "select": {"metric": "mean/nll"}},
        optimizer={"name": "adamw", "lr": 0.5},  # so large that the last epoch need not be the best
        evaluation={"metrics": METRICS},
        callbacks=["jsonl"],
    )
    assert run(["train", "-c", config, "--folder", "made"]) == 0
    record = results(Path("made"))
    for row in record["rows"]:
        assert {"accuracy", "brier", "nll", "aurc", "mcc"} <= set(row["metrics"])
        assert 0 <= row["metrics"]["brier"] <= 2
        assert 0 <= row["metrics"]["aurc"] <= 1
        assert row["metrics"]["nll"] > 0
        assert -1 <= row["metrics"]["mcc"] <= 1
    validation = [line["validation/mean/nll"] for line in records(Path("made"), "epoch")]
    assert len(validation) == 3
    assert record["selection"]["metric"] == "mean/nll"
    assert record["selection"]["value"] == min(validation) < math.inf
    assert record["selection"]["epoch"] == validation.index(min(validation))
    assert record["aggregates"]["worst"]["nll"] == max(row["metrics"]["nll"] for row in record["rows"])


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        (["nll", "nll"], "evaluation.metrics.1: there is a metric 'nll' already; remove it"),
        (
            [{"name": "torchmetrics", "metric": "MulticlassAccuracy", "label": "accuracy"}],
            "evaluation.metrics.0: there is a metric 'accuracy' already; give it another label",
        ),
    ],
)
def test_train__refuses_metrics_of_one_name(
    tmp_path: Path, metrics: list[object], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, evaluation={"metrics": metrics})
    assert run(["train", "-c", config, "--folder", "made"]) == 2
    assert capsys.readouterr().err.strip() == text
