"""Tables of one run's protocols."""

from __future__ import annotations

import csv
from pathlib import Path

from fake_runs import combinations, config_with, facts, write_run

from robustmm.report.exported_tables import protocol_texts, write_tables

SCORES = {"rgb": 0.25, "depth": 0.5, "rgb+depth": 0.75}


def test_write_tables__three_files_for_each_protocol(tmp_path: Path) -> None:
    record = combinations(config_with(), SCORES)
    run = write_run(tmp_path / "run", config_with(), {"combinations": record, "combinations-read": record})
    paths = write_tables(run, tmp_path / "made" / "deep")
    assert [path.name for path in paths] == [
        f"{protocol}.{kind}" for protocol in ("combinations", "combinations-read") for kind in ("md", "csv", "tex")
    ]
    rows = list(csv.DictReader((tmp_path / "made/deep/combinations.csv").open()))
    assert [row["combination"] for row in rows] == [*SCORES, "mean", "worst", "complete", "drop"]
    assert float(rows[3]["accuracy"]) == 0.5


def test_texts__summaries_under_a_rule_and_degenerate_rows_marked() -> None:
    record = combinations(config_with(), SCORES)
    record["rows"][0]["degenerate"] = True
    texts = protocol_texts(record)
    assert "| rgb † | 0.2500 | 0.3750 |" in texts["md"]
    assert "† degenerate: one answer for everything" in texts["md"]
    assert (
        "demo, part test; method plain, balancer none, missing policy zero_feature, seed 0; weights selected"
        in (texts["md"])
    )
    latex = texts["tex"].splitlines()
    assert latex[latex.index(r"rgb+depth & 0.7500 & 0.1250 \\") + 1] == r"\midrule"
    assert r"rgb \dag{} & 0.2500 & 0.3750 \\" in latex


def test_texts__rows_with_several_names() -> None:
    rows = [
        {"pattern": "block", "modality": None, "rate": 0.5, "seed": 0, "metrics": {"accuracy": 0.5}, "samples": 4},
        {"pattern": "block", "modality": None, "rate": 0.5, "seed": 1, "metrics": {"accuracy": 0.6}, "samples": 4},
    ]
    assert "| block | 0.5 | 1 | 0.6000 |" in protocol_texts({**facts(config_with()), "rows": rows})["md"]


def test_texts__times_are_the_scores_of_latency() -> None:
    rows = [{"combination": "rgb", "batch_size": 1, "median_ms": 1.5, "p95_ms": 2.0, "flops": None}]
    text = protocol_texts({**facts(config_with()), "rows": rows})["md"]
    assert "| combination | batch_size | median_ms | p95_ms | flops |" in text
    assert "| rgb | 1 | 1.5000 | 2.0000 | - |" in text
