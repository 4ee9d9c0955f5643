"""The result files: what stands in them, and what never does."""

import csv
import json

import pytest

from robustmm import CheckpointError
from robustmm.engine.scores import Summary
from robustmm.report.results import protocol_record, read_results, write_protocol


def result_row(name: str, accuracy: float | None, *, degenerate: bool = False) -> dict:
    return {
        "combination": name,
        "metrics": {"accuracy": accuracy, "auroc": None},
        "samples": 4,
        "excluded": 0,
        "incomplete": 1,
        "degenerate": degenerate,
    }


def record(title: str = "test", accuracy: float | None = 0.5) -> dict:
    rows = [result_row("rgb", accuracy, degenerate=True), result_row("rgb+depth", 0.75)]
    aggregates = {name: {"accuracy": accuracy, "auroc": None} for name in ("mean", "worst", "complete", "drop")}
    own = Summary(rows, [result_row("rgb", 0.25)], aggregates, {})
    return protocol_record(own, "split", {"title": title, "split": "test"})


def test_protocol_record__holds_facts_rows_and_the_degenerate_by_name():
    own = record()
    assert own["split"] == "test"
    assert own["degenerate"] == ["rgb"]
    assert own["unimodal"]["source"] == "split"
    assert [row["combination"] for row in own["rows"]] == ["rgb", "rgb+depth"]


def test_write_protocol__json_csv_and_results_agree(tmp_path):
    write_protocol(tmp_path, "combinations", record(), row_facts={"method": "plain", "missing_policy": "zero_feature"})
    alone = json.loads((tmp_path / "eval" / "combinations.json").read_text())
    assert read_results(tmp_path / "results.json") == {"format": 1, "protocols": {"combinations": alone}}
    with (tmp_path / "eval" / "combinations.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1] == {
        "method": "plain",
        "missing_policy": "zero_feature",
        "combination": "rgb+depth",
        "samples": "4",
        "excluded": "0",
        "incomplete": "1",
        "degenerate": "False",
        "accuracy": "0.75",
        "auroc": "",
    }


def test_write_protocol__scores_of_classes_stand_in_json_alone(tmp_path):
    own = record()
    own["rows"][0]["per_class"] = {"iou": [0.5, None]}
    write_protocol(tmp_path, "combinations", own, row_facts={})
    alone = json.loads((tmp_path / "eval" / "combinations.json").read_text())
    assert alone["rows"][0]["per_class"] == {"iou": [0.5, None]}
    assert "per_class" not in (tmp_path / "eval" / "combinations.csv").read_text()


def test_write_protocol__keeps_other_protocols_and_replaces_its_own(tmp_path):
    for protocol, title in (("combinations", "old"), ("missing-rate", "rates"), ("combinations", "new")):
        write_protocol(tmp_path, protocol, record(title), row_facts={})
    protocols = read_results(tmp_path / "results.json")["protocols"]
    assert {name: own["title"] for name, own in protocols.items()} == {"combinations": "new", "missing-rate": "rates"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_write_protocol__what_is_not_finite_becomes_null(tmp_path, value):
    write_protocol(tmp_path, "combinations", record(accuracy=value), row_facts={})
    text = (tmp_path / "results.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    stored = json.loads(text)["protocols"]["combinations"]
    assert stored["rows"][0]["metrics"]["accuracy"] is None
    with (tmp_path / "eval" / "combinations.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["accuracy"] == ""


def test_read_results__missing_file(tmp_path):
    path = tmp_path / "results.json"
    with pytest.raises(CheckpointError) as caught:
        read_results(path)
    assert str(caught.value).startswith(f"{path} cannot be read: ")
    assert str(caught.value).endswith("; run `robustmm evaluate` on the run")


@pytest.mark.parametrize("text", ['{"format": 1, "proto', "[]", '{"format": 1}', '{"protocols": []}', "\x00"])
def test_read_results__damaged_file(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(CheckpointError) as caught:
        read_results(path)
    assert str(caught.value).startswith(f"{path} is damaged: ")
    assert str(caught.value).endswith("; delete it and run `robustmm evaluate` on the run again")
