"""What the page says before a number is quoted."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from report_pages import make_record, page_of, remarks_of

from robustmm.report.remarks import remarks
from robustmm.report.run_files import RunFiles

TWO = ["rgb", "depth"]
OTHER = "warning: Measured with other weights, or on other data, than the combinations: noise."


def test_report__says_degenerate_in_words(tmp_path: Path) -> None:
    record = make_record(["rgb", "depth"], degenerate=["depth"])
    record["rows"][1]["degenerate"] = True
    page = page_of(tmp_path, record)
    (row,) = page.find("tr", data_combination="depth")
    assert row.find("th")[0].text == "depth degenerate"
    assert page.find("tr", data_combination="rgb")[0].find("th")[0].text == "rgb"
    assert remarks_of(page)[0].startswith("Warning: 1 degenerate combination: depth.")
    (worth,) = page.find("tr", data_modality="depth")
    assert worth.find("td")[3].text.endswith("degenerate")


def test_report__says_what_changes_the_meaning_of_the_numbers(tmp_path: Path) -> None:
    data = {"validation": "carved from training by classes, fraction 0.15, seed 0"}
    record = make_record(["rgb", "depth"], data=data)
    record["rows"][0]["excluded"] = 7
    record["rows"][2]["incomplete"] = 9
    record["rows"].pop(1)
    (tmp_path / "metrics.jsonl").write_text('{"kind": "end", "step": 4, "status": "interrupted"}\n')
    (tmp_path / "env.json").write_text('{"commit": "abc-dirty"}')
    said = remarks_of(page_of(tmp_path, record))
    assert [text.split()[0] for text in said] == ["Warning:"] * 3 + ["Note:"] * 4
    for part, text in zip(
        (
            "left out of 1 combination, up to 7",
            "In 1 combination some samples, up to 9",
            "ended as 'interrupted'",
            "missing policy 'zero_feature'",
            "it was carved from training by classes, fraction 0.15, seed 0",
            "2 of the 3 combinations",
            "abc-dirty",
        ),
        said,
        strict=True,
    ):
        assert part in text


def test_report__clean_run_has_no_warning(tmp_path: Path) -> None:
    assert [text.split()[0] for text in remarks_of(page_of(tmp_path, make_record(["rgb", "depth"])))] == ["Note:"]


def test_remarks__shorten_a_long_list_of_names() -> None:
    record = make_record(TWO, degenerate=[f"m{place}" for place in range(10)])
    warning, _ = remarks(RunFiles(Path(), {"combinations": record}))
    assert "10 degenerate combinations: m0, m1, m2, m3, m4, m5, m6, m7 and 2 more." in warning.text


def said(**others: dict[str, Any]) -> list[str]:
    """Remarks of a clean run with more protocols."""
    run = RunFiles(Path(), {"combinations": make_record(TWO), **{k.replace("_", "-"): v for k, v in others.items()}})
    return [f"{remark.kind}: {remark.text}" for remark in remarks(run)]


def beside(**changes: Any) -> dict[str, Any]:
    """Another protocol's record of the same run."""
    rows = [{"degenerate": False}, {"degenerate": False}]
    return {"rows": rows, "selection": copy.deepcopy(make_record(TWO)["selection"]), **changes}


def test_remarks__degenerate_rows_of_any_protocol_are_warned_of() -> None:
    found = said(corruption=beside(rows=[{"degenerate": True}, {"degenerate": False}]))
    assert found[0].startswith("warning: 1 degenerate row of 2 in corruption: ")


def test_remarks__weights_selected_on_the_test_part_are_warned_of(tmp_path: Path) -> None:
    chosen = {"part": "test", "metric": "mean/accuracy", "value": 0.8125, "epoch": 1}
    page = page_of(tmp_path, make_record(TWO, selection=chosen))
    assert remarks_of(page)[0].startswith("Warning: The weights were selected on the test part")
    assert "was not used for the choice" not in page.find("p", **{"class": "selection"})[0].text


def test_remarks__protocols_of_other_weights_are_warned_of() -> None:
    other = beside()
    other["selection"]["epoch"] = 0
    assert OTHER in said(noise=other)[0]
    assert len(said(noise=beside(curves=[]))) == 1


@pytest.mark.parametrize(("own", "warned"), [("a1", False), ("b2", True), (None, False)])
def test_remarks__protocols_of_another_fingerprint_are_warned_of(own: str | None, warned: bool) -> None:
    combinations = {**make_record(TWO), "fingerprint": "a1"}
    noise = beside(curves=[], **({"fingerprint": own} if own else {}))
    found = [remark.text for remark in remarks(RunFiles(Path(), {"combinations": combinations, "noise": noise}))]
    assert any(text.startswith("Measured with other weights, or on other data") for text in found) == warned


def test_remarks__few_samples_and_few_masks_are_noted(tmp_path: Path) -> None:
    record = make_record(TWO)
    record["data"]["test_samples"] = 48
    assert "The test part has 48 samples: small differences are chance." in remarks_of(page_of(tmp_path, record))[1]
    found = said(missing_rate=beside(curves=[{"draws": 1}, {"draws": 5}]))
    assert "note: missing-rate has only 1 mask at a place; its deviation says little." in found


@pytest.mark.parametrize(("setting", "count"), [("false", 2), ("true", 1)])
def test_remarks__a_run_that_cannot_be_repeated_is_noted(setting: str, count: int) -> None:
    config = f"train:\n  deterministic: {setting}\n"
    found = remarks(RunFiles(Path(), {"combinations": make_record(TWO)}, config=config))
    assert len(found) == count
    assert ("train.deterministic is false" in found[-1].text) == (setting == "false")


@pytest.mark.parametrize("config", ["- a list", "a: [unclosed", ""])
def test_remarks__a_configuration_that_cannot_be_read_is_passed_over(config: str) -> None:
    assert len(remarks(RunFiles(Path(), {"combinations": make_record(TWO)}, config=config))) == 1
