"""``comparison.html``: every number is the one in the comparison, and the page needs nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fake_runs import config_with, facts, write_group, write_run
from report_pages import Node, read_page, value_of

from robustmm.report.compare import CompareRequest, compare
from robustmm.report.comparison.differences import verdict
from robustmm.report.comparison_page import write_comparison_page

GAINS = [0.05, 0.06, 0.04, 0.055]


@pytest.fixture
def two(tmp_path: Path) -> tuple[dict[str, Any], Node]:
    """A comparison of two groups, and its page."""
    root = tmp_path / "runs"
    write_group(root, "a_plain", [0.0] * 4)
    write_group(root, "b_drop", GAINS, method__name="modality_dropout", optimizer__lr=0.02)
    compared = json.loads(json.dumps(compare(CompareRequest([root]))))
    return compared, read_page(write_comparison_page(compared, tmp_path / "made"))


def rows_of(page: Node, name: str) -> list[Node]:
    (table,) = page.find("table", id=name)
    return table.find("tbody")[0].find("tr")


def test_groups__means_deviations_and_intervals(two: tuple[dict[str, Any], Node]) -> None:
    compared, page = two
    for row, group in zip(rows_of(page, "group-table"), compared["groups"], strict=True):
        assert row.attributes["data-group"] == group["label"]
        for cell, name in zip(row.find("td"), compared["quantities"], strict=True):
            own = group["quantities"][name]
            found = [cell.attributes[key] for key in ("data-value", "data-sd", "data-low", "data-high")]
            assert found == [str(value) for value in (own["mean"], own["sd"], *own["interval"])]


def test_groups__every_seed_has_its_value_and_its_dot(two: tuple[dict[str, Any], Node]) -> None:
    compared, page = two
    by_label = {group["label"]: group for group in compared["groups"]}
    for row in rows_of(page, "seed-table"):
        own = by_label[row.attributes["data-group"] or ""]["quantities"][row.attributes["data-quantity"]]
        assert [value_of(cell) for cell in row.find("td")[1:]] == own["values"]
    (title,) = page.find("title", id="fig-groups-1-title")
    assert title.text == "mean: accuracy"
    dots = [
        dot.find("title")[0].text
        for dot in page.find("section", id="groups")[0].find("circle", **{"class": "mark soft"})
        if dot.find("title")
    ]
    assert len(dots) == len(compared["groups"]) * len(compared["quantities"]) * 4
    assert dots[0] == "plain, seed 0: 0.6000"


def test_differences__are_those_of_the_comparison(two: tuple[dict[str, Any], Node]) -> None:
    compared, page = two
    for row, one in zip(rows_of(page, "difference-table"), compared["comparisons"], strict=True):
        assert (row.attributes["data-group"], row.attributes["data-quantity"]) == (one["group"], one["quantity"])
        numbers = [value_of(cell) for cell in row.find("td", **{"class": "num"})]
        assert [value_of(row.find("td")[1]), *numbers] == [
            one["difference"],
            *one["interval"],
            one["p_t"],
            one["p_sign_flip"],
            one["p_holm"],
        ]
        assert row.find("td")[-1].text == "better"
    assert "paired t-test" in page.find("section", id="differences")[0].text
    assert [text.text for text in page.find("text") if "rule-label" in (text.attributes["class"] or "")] == [
        "no difference"
    ] * len(compared["quantities"])


@pytest.mark.parametrize(
    ("significant", "better", "words"),
    [(True, True, "better"), (True, False, "worse"), (False, True, "not told apart")],
)
def test_differences__say_no_more_than_the_corrected_test(significant: bool, better: bool, words: str) -> None:
    assert verdict({"significant": significant, "better": better}) == words


def test_points__are_means_over_seeds_and_coloured_by_the_reference(two: tuple[dict[str, Any], Node]) -> None:
    compared, page = two
    for place, row in enumerate(rows_of(page, "point-table")):
        points = [group["points"][place] for group in compared["groups"]]
        assert row.attributes["data-point"] == points[0]["name"]
        assert [value_of(cell) for cell in row.find("td")] == [point["mean"] for point in points]
        assert [cell.attributes["data-sd"] for cell in row.find("td")] == [str(point["sd"]) for point in points]
        assert [cell.attributes["class"] for cell in row.find("td")] == ["heat gain", "heat gain"]
        assert row.find("td")[0].attributes["style"] == "--tint:0.0%"


def test_points__differences_within_noise_stay_pale(tmp_path: Path) -> None:
    write_group(tmp_path / "runs", "a_plain", [0.0] * 3)
    write_group(tmp_path / "runs", "b_drop", [0.01] * 3, method__name="modality_dropout")
    page = read_page(write_comparison_page(compare(CompareRequest([tmp_path / "runs"])), tmp_path / "made"))
    assert rows_of(page, "point-table")[0].find("td")[1].attributes["style"] == "--tint:9.0%"
    (table,) = page.find("table", id="point-table")
    assert "from plain, palest for none and darkest for 0.0500: worse better" in table.find("caption")[0].text


def test_points__along_a_rate_are_curves(tmp_path: Path) -> None:
    for name, lost in (("plain", 0.4), ("modality_dropout", 0.2)):
        for seed in range(3):
            config = config_with(name=name, seed=seed, method__name=name)
            rows = [
                {
                    "pattern": "bernoulli",
                    "modality": None,
                    "rate": rate,
                    "seed": 0,
                    "metrics": {"accuracy": 0.9 - lost * rate + seed / 100, "ece": 0.1},
                    "samples": 40,
                    "excluded": 0,
                    "degenerate": False,
                }
                for rate in (0.0, 0.5)
            ]
            write_run(tmp_path / name / f"s{seed}", config, {"missing-rate": {**facts(config), "rows": rows}})
    compared = compare(CompareRequest([tmp_path], protocol="missing-rate"))
    page = read_page(write_comparison_page(compared, tmp_path / "made"))
    (section,) = page.find("section", id="points")
    (plot,) = section.find("svg", role="img")
    assert len(plot.find("polyline")) == len(plot.find("polygon")) == 2
    assert section.find("h2")[0].text == "Curves over missing rate"


def test_runs__are_listed_with_their_selection(two: tuple[dict[str, Any], Node]) -> None:
    compared, page = two
    listed = [row.attributes["data-run"] for row in rows_of(page, "run-table")]
    assert listed == [path for group in compared["groups"] for path in group["runs"]]
    assert "optimizer.lr" in page.find("section", id="runs")[0].text


def test_page__tells_every_remark(two: tuple[dict[str, Any], Node]) -> None:
    compared, page = two
    (box,) = page.find("aside")
    assert [item.text.partition(": ")[2] for item in box.find("li")] == [one["text"] for one in compared["remarks"]]


def test_page__of_one_group_has_no_differences(tmp_path: Path) -> None:
    write_group(tmp_path / "runs", "plain", [0.0] * 3)
    page = read_page(write_comparison_page(compare(CompareRequest([tmp_path / "runs"])), tmp_path))
    names = [section.attributes["id"] for section in page.find("main")[0].find("section")]
    assert names == ["groups", "points", "runs"]
    assert [link.attributes["href"] for link in page.find("nav")[0].find("a")] == ["#groups", "#points", "#runs"]


def test_page__needs_no_network_and_is_accessible(two: tuple[dict[str, Any], Node], tmp_path: Path) -> None:
    _, page = two
    text = (tmp_path / "made" / "comparison.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|<link|<img|\ssrc=|\shref=\"(?!#)|@import|url\(", text)
    assert "default-src 'none'" in text
    assert all(table.find("caption")[0].text for table in page.find("table"))
    assert all(head.attributes.get("scope") for head in page.find("th"))
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["comparison.html"]


def test_page__escapes_labels(tmp_path: Path) -> None:
    write_group(tmp_path / "runs", "a", [0.0] * 3, method__name="<b>bold</b>")
    write_group(tmp_path / "runs", "b", [0.0] * 3, method__name="plain")
    page = read_page(write_comparison_page(compare(CompareRequest([tmp_path / "runs"])), tmp_path))
    assert page.find("b") == []
