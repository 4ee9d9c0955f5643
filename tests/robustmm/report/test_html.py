from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from regression_results import ERRORS, regression_record
from report_pages import make_record, page_of

from robustmm.commands.report import command
from robustmm.errors import CheckpointError
from robustmm.report.html import write_report
from robustmm.report.sheet import DESCRIPTION, SHEET, STRIPS


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_report__combination_table_holds_the_numbers_of_the_results(tmp_path: Path, count: int) -> None:
    record = make_record(list("abcde"[:count]))
    (table,) = page_of(tmp_path, record).find("table", id="combination-table")
    rows = [node for node in table.find("tr") if "data-combination" in node.attributes]
    assert len(rows) == 2**count - 1
    for row, given in zip(rows, record["rows"], strict=True):
        assert row.attributes["data-combination"] == given["combination"]
        accuracy, auroc, *counts = row.find("td")
        for cell, value in ((accuracy, given["metrics"]["accuracy"]), (auroc, given["metrics"]["auroc"])):
            assert cell.text == ("–" if value is None else f"{value:.4f}")
            assert cell.attributes["data-value"] == ("" if value is None else str(value))
        assert [cell.text for cell in counts] == [str(given["samples"]), "0", "0"]
    for name, values in record["aggregates"].items():
        (row,) = table.find("tr", data_aggregate=name)
        assert [cell.text for cell in row.find("td")[:2]] == [f"{values['accuracy']:.4f}", "–"]


def test_report__cards_hold_the_aggregates_of_the_main_score(tmp_path: Path) -> None:
    record = make_record(["rgb", "depth"])
    page = page_of(tmp_path, record)
    for name, values in record["aggregates"].items():
        (card,) = page.find("div", id=f"card-{name}")
        assert card.find("dd")[0].text == f"{values['accuracy']:.4f}"
    assert page.find("div", id="card-worst")[0].find("dd")[1].text == "rgb"


def test_report__main_score_is_the_first_column(tmp_path: Path) -> None:
    record = make_record(["rgb", "depth"], score="auroc")
    (table,) = page_of(tmp_path, record).find("table", id="combination-table")
    heads = [cell.text for cell in table.find("thead")[0].find("th")]
    assert heads[:3] == ["combination", "AUROC more is better", "accuracy more is better"]


def test_report__states_the_selection(tmp_path: Path) -> None:
    (statement,) = page_of(tmp_path, make_record(["rgb"])).find("p", **{"class": "selection"})
    assert "epoch 1 (counted from 0), selected by mean/accuracy on the validation part" in statement.text
    assert "0.8125" in statement.text


def test_report__many_combinations_are_summed_up_by_size(tmp_path: Path) -> None:
    record = make_record(list("abcde"))
    page = page_of(tmp_path, record)
    scores = [row["metrics"]["accuracy"] for row in record["rows"] if row["combination"].count("+") == 1]
    (row,) = page.find("tr", data_size="2")
    expected = [sum(scores) / 10, min(scores), max(scores)]
    assert [cell.text for cell in row.find("td")] == [*(f"{value:.4f}" for value in expected), "10"]
    assert page.find("title", id="fig-sizes-title")


def test_report__few_combinations_need_no_summary_by_size(tmp_path: Path) -> None:
    page = page_of(tmp_path, make_record(list("abcd")))
    assert not page.find("section", id="sizes")
    assert page.find("section", id="worth")


def test_report__one_modality_has_nothing_to_compare(tmp_path: Path) -> None:
    assert not page_of(tmp_path, make_record(["rgb"])).find("section", id="worth")


@pytest.mark.parametrize(("source", "words"), [("split", "exact share"), ("masked", "hidden after encoding")])
def test_report__own_predictions_stand_beside_the_fused_with_their_source(
    tmp_path: Path, source: str, words: str
) -> None:
    own = [
        {"combination": name, "metrics": {"accuracy": value, "auroc": None}, "degenerate": False}
        for name, value in (("rgb", 0.25), ("depth", 0.75))
    ]
    page = page_of(tmp_path, make_record(["rgb", "depth"], unimodal={"source": source, "rows": own}))
    (row,) = page.find("tr", data_modality="rgb")
    # rgb alone 0.4, depth alone 0.4 + 1/137, both 0.4 + 2/137
    assert [cell.text for cell in row.find("td")] == ["0.4073", "0.4146", "+0.0073", "0.4000", "0.2500"]
    assert words in page.find("section", id="worth")[0].text


def dense_record(**changes: Any) -> dict[str, Any]:
    """Of three classes, the last of which nothing has."""
    record = make_record(["rgb", "depth"], score="miou", classes=["floor", "wall", "sky"], directions={"miou": "max"})
    for place, row in enumerate(record["rows"]):
        row["metrics"] = {"miou": 0.3 + place / 7, "miou_present": 0.45 + place / 7}
        row["per_class"] = {"iou": [0.25 + place / 16, 0.5, None], "dice": [0.4, 0.75 + place / 16, None]}
    record["directions"]["miou_present"] = "max"
    record["aggregates"] = {name: {"miou": 0.5, "miou_present": 0.5} for name in record["aggregates"]}
    return record | {"colours": [[255, 0, 0], [0, 128, 0], [0, 0, 1]]} | changes


def test_report__dense_run_has_a_table_of_classes(tmp_path: Path) -> None:
    (section,) = page_of(tmp_path, dense_record()).find("section", id="classes")
    heads = [cell.text for cell in section.find("thead")[0].find("th")]
    assert heads == ["class", "IoU", "Dice", *["complete", "worst (rgb)", "mean of 3"] * 2]
    rows = {
        row.attributes["data-class"]: [cell.text for cell in row.find("td")]
        for row in section.find("tbody")[0].find("tr")
    }
    assert rows == {
        "floor": ["0.3750", "0.2500", "0.3125", "0.4000", "0.4000", "0.4000"],
        "wall": ["0.5000", "0.5000", "0.5000", "0.8750", "0.7500", "0.8125"],
        "sky": ["–"] * 6,
    }
    swatches = [node.attributes["style"] for node in section.find("span", **{"class": "swatch"})]
    assert swatches == ["background:#ff0000", "background:#008000", "background:#000001"]
    assert "a class that neither label nor prediction has counts as 0" in section.text


def test_report__writes_scores_of_segmentation_as_people_do(tmp_path: Path) -> None:
    page = page_of(tmp_path, dense_record())
    assert page.find("h2")[0].text == "mIoU on the test part"
    heads = [cell.text for cell in page.find("table", id="combination-table")[0].find("thead")[0].find("th")]
    assert heads[1:3] == ["mIoU more is better", "mIoU present more is better"]
    assert page.find("span", **{"class": "chart-title"})[0].text == "Mean mIoU without and with each modality"


def test_report__classification_has_neither_classes_nor_pictures(tmp_path: Path) -> None:
    page = page_of(tmp_path, make_record(["rgb", "depth"]))
    assert not page.find("section", id="classes")
    assert not page.find("section", id="pictures")


def test_report__holds_the_sheet_itself(tmp_path: Path) -> None:
    information = PngInfo()
    information.add_itxt(DESCRIPTION, "6 of 9 samples")
    information.add_text(STRIPS, "4 10")
    (tmp_path / "eval").mkdir()
    Image.new("RGB", (20, 10), (1, 2, 3)).save(tmp_path / SHEET, pnginfo=information)
    (section,) = page_of(tmp_path, dense_record()).find("section", id="pictures")
    images = section.find("img")
    assert [(image.attributes["width"], image.attributes["height"]) for image in images] == [("20", "4"), ("20", "6")]
    assert all(str(image.attributes["src"]).startswith("data:image/") for image in images)
    assert [image.attributes["alt"] for image in images] == ["Picture sheet, described in the caption", ""]
    assert section.find("figcaption")[0].text == "6 of 9 samples As a file: eval/pictures.png."
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'; img-src data:;" in text
    assert not re.search(r"https?:|<link|\ssrc=\"(?!data:)|\shref=\"(?!#)|@import|url\(", text)


def test_report__draws_training_and_marks_the_selected_epoch(tmp_path: Path) -> None:
    lines = [
        {"kind": "log", "step": 1, "loss/task": 2.0, "loss/total": 2.0, "lr": 0.1},
        {"kind": "epoch", "step": 1, "epoch": 0, "validation/mean/accuracy": 0.5, "validation/worst/accuracy": "nan"},
        {"kind": "log", "step": 2, "loss/task": 1.0, "loss/total": 1.0, "lr": 0.1},
        {"kind": "epoch", "step": 2, "epoch": 1, "validation/mean/accuracy": 0.7, "validation/worst/accuracy": 0.1},
        {"kind": "message", "step": 2, "text": "stopped early"},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "lo')
    page = page_of(tmp_path, make_record(["rgb", "depth"]))
    losses, scores = page.find("section", id="training")[0].find("svg", role="img")
    assert losses.find("desc")[0].text == "Loss terms by optimiser step: task from 2 to 1."
    assert "mean/accuracy from 0.5 to 0.7; worst/accuracy from 0.1 to 0.1" in scores.find("desc")[0].text
    assert [node.text for node in scores.find("text") if "rule-label" in (node.attributes["class"] or "")] == [
        "selected: epoch 1"
    ]
    assert [item.text for item in page.find("section", id="training")[0].find("li")] == ["stopped early"]


def test_report__works_from_results_alone(tmp_path: Path) -> None:
    page = page_of(tmp_path, make_record(["rgb", "depth"]))
    assert "has no metrics.jsonl" in page.find("section", id="training")[0].text
    setup = page.find("section", id="setup")[0].text
    assert "no config.yaml" in setup
    assert "no env.json" in setup


def test_report__shows_configuration_and_environment(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("method:\n  name: dmrnet\n")
    (tmp_path / "env.json").write_text(json.dumps({"gpus": [], "cuda": None, "versions": {"torch": "2.15"}}))
    setup = page_of(tmp_path, make_record(["rgb", "depth"])).find("section", id="setup")[0]
    assert setup.find("code")[0].raw == "method:\n  name: dmrnet\n"
    facts = {row.find("th")[0].text: row.find("td")[0].text for row in setup.find("tr")}
    assert facts["versions: torch"] == "2.15"
    assert facts["gpus"] == "none"
    assert facts["cuda"] == "–"
    assert facts["test samples"] == "1000"


def test_report__escapes_names(tmp_path: Path) -> None:
    record = make_record(["<b>rgb</b>", "depth"], run='<script>alert("x")</script>')
    (tmp_path / "config.yaml").write_text("name: </code><script>alert(1)</script>")
    page = page_of(tmp_path, record)
    assert page.find("h1")[0].text == '<script>alert("x")</script>'
    assert page.find("b") == []
    assert len(page.find("script")) == 1


def test_report__needs_no_network_and_no_other_file(tmp_path: Path) -> None:
    page_of(tmp_path, make_record(list("abcde")))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|<link|<img|\ssrc=|\shref=\"(?!#)|@import|url\(", text)
    assert "default-src 'none'" in text


def test_report__is_accessible(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"kind": "log", "step": 1, "loss/task": 2.0}\n')
    page = page_of(tmp_path, make_record(list("abcde")))
    assert all(table.find("caption")[0].text for table in page.find("table"))
    assert all(head.attributes.get("scope") in ("col", "row") for head in page.find("th"))
    pictures = [svg for svg in page.find("svg") if svg.attributes.get("aria-hidden") != "true"]
    assert len(pictures) == 3
    for svg in pictures:
        assert svg.attributes["role"] == "img"
        label = f"{svg.find('title')[0].attributes['id']} {svg.find('desc')[0].attributes['id']}"
        assert svg.attributes["aria-labelledby"] == label
    named = [node.attributes.get("id") for tag in ("section", "h2", "h3", "title", "desc") for node in page.find(tag)]
    identities = [name for name in named if name]
    assert len(identities) == len(set(identities))
    assert len(page.find("h1")) == 1


def test_report__replaces_the_page_and_leaves_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    page_of(tmp_path, make_record(["rgb"]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "results.json"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_report__without_results_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"results\.json cannot be read: .*run `robustmm evaluate`"):
        write_report(tmp_path)


def test_report__without_its_protocol_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"format": 1, "protocols": {"corruption": {}}}')
    with pytest.raises(
        CheckpointError, match=r"has no protocol 'combinations' \(it has corruption\); run `robustmm evaluate"
    ):
        write_report(tmp_path)


def test_report_command__prints_the_page(tmp_path: Path) -> None:
    page_of(tmp_path, make_record(["rgb"]))
    (tmp_path / "report.html").unlink()
    (tmp_path / "config.yaml").write_text("name: demo\n")
    result = CliRunner().invoke(command, [str(tmp_path)], catch_exceptions=False)
    assert result.output == f"{tmp_path / 'report.html'}\n"
    assert (tmp_path / "report.html").is_file()


def test_report__of_regression_has_errors_in_their_unit_and_no_classes(tmp_path: Path) -> None:
    page = page_of(tmp_path, regression_record(ERRORS))
    (table,) = page.find("table", id="combination-table")
    heads = [cell.text for cell in table.find("th", scope="col")]
    assert heads[1:4] == ["MAE less is better", "RMSE less is better", "correlation more is better"]
    (row,) = table.find("tr", data_combination="rgb+depth")
    assert [cell.text for cell in row.find("td")[:3]] == ["1.23457e+06", "2.46914e+06", "0.5000"]
    assert page.find("h2")[0].text == "MAE on the test part"
    assert not page.find("section", id="classes")
    assert "classes" not in page.find("section", id="setup")[0].text
    assert "Predicted quantity: age. Errors are in the targets' own unit." in page.find("section", id="setup")[0].text


def test_report__bars_of_errors_end_at_the_largest_one(tmp_path: Path) -> None:
    tiny = {name: error / 1e9 for name, error in {**ERRORS, "rgb+depth": 25.0}.items()}
    (table,) = page_of(tmp_path, regression_record(tiny)).find("table", id="combination-table")
    cells = [table.find("tr", data_combination=name)[0].find("td")[0] for name in tiny]
    assert [cell.attributes["style"] for cell in cells] == ["--share:96.2%", "--share:100.0%", "--share:48.1%"]


def test_report__says_that_a_share_is_a_part_of_a_quantity(tmp_path: Path) -> None:
    record = regression_record(ERRORS)
    record["unimodal"] = {"source": "split", "rows": record["rows"][:2]}
    assert "A share of a quantity is a part of it" in page_of(tmp_path, record).text
    of_classes = make_record(["rgb", "depth"])
    of_classes["unimodal"] = {"source": "split", "rows": of_classes["rows"][:2]}
    assert "A share of a quantity" not in page_of(tmp_path, of_classes).text
