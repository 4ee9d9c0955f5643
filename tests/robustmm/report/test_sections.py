"""Every number that a section shows is the one in ``results.json``: of a real run with every protocol, and by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cli_runs import write_config
from regression_results import ERRORS, regression_record
from report_pages import Node, make_record, page_of, read_page, value_of

from robustmm.cli import run
from robustmm.plugin_manager import set_plugins_dirs
from robustmm.protocols.listing import PROTOCOLS
from robustmm.report.sections.confusion import LISTED, MOST_CLASSES

pytestmark = pytest.mark.xdist_group("report_sections")  # one run for all of them
CHANGES: dict[str, Any] = {
    "data": {"dataset": {"name": "synthetic", "modalities": 3, "samples": 48, "size": 8, "noise": 0.6}},
    "method": "modality_dropout",
    "evaluation": {
        "protocols": [*PROTOCOLS],
        "missing_rate": {"rates": [0.0, 0.5], "seeds": 2, "patterns": ["bernoulli", "shared", "per_modality"]},
        "corruption": {"severities": [1, 5]},
        "latency": {"repeats": 3, "batch_sizes": [1, 2]},
    },
}


@dataclass(frozen=True)
class Made:
    """A run with every protocol.

    Args:
        folder: Of the run.
        page: Its page.
        protocols: Of its ``results.json``.
    """

    folder: Path
    page: Node
    protocols: dict[str, Any]

    def table(self, name: str) -> Node:
        """A table of the page."""
        (found,) = self.page.find("table", id=name)
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    set_plugins_dirs()
    root = tmp_path_factory.mktemp("runs")
    folder = root / "made"
    assert run(["train", "-c", write_config(root, **CHANGES), "--folder", str(folder)]) == 0
    protocols = json.loads((folder / "results.json").read_text(encoding="utf-8"))["protocols"]
    yield Made(folder, read_page(folder / "report.html"), protocols)
    set_plugins_dirs()


def numbers(row: Node) -> list[float | None]:
    """Of the cells of a row that have one."""
    return [
        value_of(cell)
        for cell in row.find("td")
        if re.fullmatch(r"|-?[\d.e+-]+", cell.attributes.get("data-value", "x") or "")
    ]


def rows_of(table: Node) -> list[Node]:
    return table.find("tbody")[0].find("tr")


def test_navigation__lists_the_sections_in_order(made: Made) -> None:
    names = [section.attributes["id"] for section in made.page.find("main")[0].find("section")]
    links = [link.attributes["href"] for link in made.page.find("nav")[0].find("a")]
    assert links == [f"#{name}" for name in names]
    assert {"summary", "combinations", "missing-rate", "corruption", "noise", "expected", "calibration"} <= set(names)
    assert {"latency", "confusion", "classes", "training", "setup"} <= set(names)


def test_navigation__has_no_link_to_what_was_not_measured(tmp_path: Path) -> None:
    page = page_of(tmp_path, make_record(["rgb", "depth"]))
    links = [link.attributes["href"] for link in page.find("nav")[0].find("a")]
    assert links == ["#summary", "#combinations", "#worth", "#training", "#setup"]
    (said,) = page.find("p", id="not-measured")
    assert said.text.startswith(
        "Not measured: expected, missing-rate, corruption, noise, calibration, latency. robustmm"
    )


def test_summary__one_number_of_every_protocol(made: Made) -> None:
    found = {
        row.attributes["data-protocol"]: value_of(row.find("td")[1]) for row in rows_of(made.table("protocol-table"))
    }
    assert set(found) == set(PROTOCOLS) - {"combinations"}
    means = [one["metrics"]["accuracy"] for one in made.protocols["corruption"]["means"]]
    assert found["corruption"] == min(means)
    assert found["expected"] == made.protocols["expected"]["rows"][-1]["metrics"]["accuracy"]
    assert found["calibration"] == made.protocols["calibration"]["rows"][-1]["metrics"]["ece"]
    half = next(one for one in made.protocols["missing-rate"]["curves"] if one["rate"] == 0.5)
    assert found["missing-rate"] == half["metrics"]["accuracy"]["mean"]


def test_expected__rows_are_those_of_the_results(made: Made) -> None:
    for row, given in zip(rows_of(made.table("expected-table")), made.protocols["expected"]["rows"], strict=True):
        assert row.attributes["data-row"] == given["name"]
        assert sorted(map(str, numbers(row))) == sorted(map(str, given["metrics"].values()))
        assert numbers(row)[0] == given["metrics"]["accuracy"]


def test_missing_rate__grid_and_table_hold_means_and_deviations(made: Made) -> None:
    record = made.protocols["missing-rate"]
    cells = {
        (row.attributes["data-line"], float(cell.attributes["data-rate"] or "")): cell
        for row in rows_of(made.table("missing-rate-grid"))
        for cell in row.find("td")
    }
    lines = rows_of(made.table("missing-rate-table"))
    assert len(cells) == len(lines) == len(record["curves"])
    for line, point in zip(lines, record["curves"], strict=True):
        own = point["metrics"]["accuracy"]
        name = point["pattern"] if point["modality"] is None else f"only {point['modality']} missing"
        cell = cells[name, point["rate"]]
        assert value_of(cell) == own["mean"]
        assert cell.attributes["data-sd"] == str(own["sd"])
        rows = [row for row in record["rows"] if all(row[key] == point[key] for key in ("pattern", "modality", "rate"))]
        realised = sum(row["realised"]["overall"] for row in rows) / len(rows)
        complete = sum(row["complete_share"] for row in rows) / len(rows)
        assert numbers(line)[:5] == [point["rate"], realised, complete, own["mean"], own["sd"]]
        others = [point["metrics"][name]["mean"] for name in point["metrics"] if name != "accuracy"]
        assert sorted(map(str, numbers(line)[5:-2])) == sorted(map(str, others))
        assert numbers(line)[-2:] == [point["draws"], max(row["excluded"] for row in rows)]


def test_missing_rate__really_missing_share_of_each_modality(made: Made) -> None:
    record = made.protocols["missing-rate"]
    for line, point in zip(rows_of(made.table("realised-table")), record["curves"], strict=True):
        rows = [row for row in record["rows"] if all(row[key] == point[key] for key in ("pattern", "modality", "rate"))]
        means = [sum(row["realised"][name] for row in rows) / len(rows) for name in ("m0", "m1", "m2")]
        assert numbers(line) == means


def test_missing_rate__curves_have_bands_and_modalities_names_beside_them(made: Made) -> None:
    patterns, single = made.page.find("section", id="missing-rate")[0].find("svg", role="img")
    assert len(patterns.find("polygon")) >= 1
    assert [text.text for text in single.find("text", **{"class": "curve-name"})] == ["m0", "m1", "m2"]


def test_missing_rate__masks_are_named_by_their_digest(made: Made) -> None:
    masks = made.protocols["missing-rate"]["masks"]
    assert masks["sha256"] in made.page.find("section", id="missing-rate")[0].text
    assert masks["sha256"] in made.page.find("div", id="masks")[0].text


def test_corruption__heat_and_table_hold_means_drops_and_reasons(made: Made) -> None:
    record = made.protocols["corruption"]
    heat = {
        (cell.attributes["data-modality"], row.attributes["data-corruption"]): cell
        for row in rows_of(made.table("corruption-heat"))
        for cell in row.find("td")
        if "data-modality" in cell.attributes
    }
    lines = rows_of(made.table("corruption-table"))
    assert len(heat) == len(lines) == len(record["means"])
    for line, mean in zip(lines, record["means"], strict=True):
        cell = heat[mean["modality"], mean["corruption"]]
        assert value_of(cell) == mean["metrics"]["accuracy"]
        assert cell.attributes["data-drop"] == str(mean["drop"]["accuracy"])
        own = [
            row["metrics"]["accuracy"]
            for row in record["rows"]
            if (row["modality"], row["corruption"]) == (mean["modality"], mean["corruption"])
        ]
        assert numbers(line) == [*own, mean["metrics"]["accuracy"], mean["drop"]["accuracy"]]
    assert value_of(made.page.find("strong", id="clean")[0]) == record["clean"]["accuracy"]
    said = made.page.find("ul", id="misfits")[0].text
    assert all(one["reason"] in said for one in record["skipped"])


def corruption_record() -> dict[str, Any]:
    """Noise on both modalities, jpeg on one."""
    base = make_record(["rgb", "depth"])
    values = {("rgb", "noise"): 0.5, ("depth", "noise"): 0.75, ("rgb", "jpeg"): 0.7}
    rows = [
        {
            "modality": m,
            "corruption": c,
            "severity": 1,
            "metrics": {"accuracy": v},
            "degenerate": v < 0.6,
            "excluded": 0,
        }
        for (m, c), v in values.items()
    ]
    means = [
        {"modality": m, "corruption": c, "metrics": {"accuracy": v}, "drop": {"accuracy": 0.7 - v}}
        for (m, c), v in values.items()
    ]
    skipped = [{"modality": "depth", "corruption": "jpeg", "reason": "it measures something"}]
    more = {"rows": rows, "means": means, "skipped": skipped, "clean": {"accuracy": 0.7}}
    return {**base, **more, "severities": [1], "corruption_seed": 0}


def test_corruption__cell_that_does_not_fit_says_why_and_harm_has_another_colour_than_gain(tmp_path: Path) -> None:
    page = page_of(tmp_path, make_record(["rgb", "depth"]), corruption=corruption_record())
    (table,) = page.find("table", id="corruption-heat")
    (noise,), (jpeg,) = (table.find("tr", data_corruption=name) for name in ("noise", "jpeg"))
    assert [cell.attributes["class"] for cell in noise.find("td")] == ["heat loss", "heat gain"]
    assert [cell.text for cell in noise.find("td")] == ["0.5000−0.20001 degenerate", "0.7500+0.0500"]
    assert [cell.text for cell in jpeg.find("td")] == ["0.70000.0000", "does not fit: it measures something"]
    assert jpeg.find("td")[1].attributes["class"] == "heat absent"
    assert "palest for none and darkest for 0.2000: worse better" in table.find("caption")[0].text
    assert [cell.attributes["style"] for cell in noise.find("td")] == ["--tint:45.0%", "--tint:11.3%"]


def test_corruption__changes_within_noise_stay_pale(tmp_path: Path) -> None:
    record = corruption_record()
    for mean in record["means"]:
        mean["drop"]["accuracy"] = 0.005
    (table,) = page_of(tmp_path, make_record(["rgb", "depth"]), corruption=record).find("table", id="corruption-heat")
    assert "darkest for 0.0500" in table.find("caption")[0].text
    assert table.find("tr", data_corruption="noise")[0].find("td")[0].attributes["style"] == "--tint:4.5%"


def test_noise__points_are_those_of_the_results(made: Made) -> None:
    record = made.protocols["noise"]
    lines, others = rows_of(made.table("noise-table")), rows_of(made.table("noise-others"))
    for line, more, point in zip(lines, others, record["curves"], strict=True):
        own = point["metrics"]["accuracy"]
        assert numbers(line) == [point["strength"], own["mean"], own["sd"], point["draws"]]
        rest = [values["mean"] for name, values in point["metrics"].items() if name != "accuracy"]
        assert sorted(map(str, numbers(more))) == sorted(map(str, rest))


def test_calibration__table_and_bins_are_those_of_the_results(made: Made) -> None:
    record = made.protocols["calibration"]
    for line, row in zip(rows_of(made.table("calibration-table")), record["rows"], strict=True):
        assert line.attributes["data-combination"] == row["combination"]
        assert numbers(line) == [*row["metrics"].values(), row["samples"]]
    by_name = {row["combination"]: row for row in record["rows"]}
    tables = made.page.find("table", **{"class": "bins"})
    assert tables[0].attributes["data-combination"] == "m0+m1+m2"
    for table in tables:
        shown = [numbers(line) for line in rows_of(table)]
        assert shown == by_name[table.attributes["data-combination"] or ""]["bins"]


def test_calibration__every_combination_has_a_diagram(made: Made) -> None:
    section = made.page.find("section", id="calibration")[0]
    titles = [node.text for node in section.find("title") if (node.attributes.get("id") or "").startswith("fig-")]
    assert len(titles) == 7
    assert titles[0] == "complete: m0+m1+m2"
    assert titles[1].startswith("worst: ")


def test_latency__table_is_that_of_the_results(made: Made) -> None:
    record = made.protocols["latency"]
    for line, row in zip(rows_of(made.table("latency-table")), record["rows"], strict=True):
        assert line.attributes["data-combination"] == row["combination"]
        assert numbers(line) == [row["batch_size"], *row["metrics"].values()]
    assert value_of(made.page.find("span", id="parameters")[0]) == record["parameters"]


def test_confusion__counts_are_those_of_the_results_and_rows_add_up(made: Made) -> None:
    confusions = made.protocols["combinations"]["confusions"]
    tables = made.page.find("section", id="confusion")[0].find("table")
    assert [table.attributes["data-combination"] for table in tables] == list(confusions)
    for table, counts in zip(tables, confusions.values(), strict=True):
        for line, own in zip(rows_of(table), counts, strict=True):
            assert numbers(line) == own[:-1]  # nothing has no class here
            shares = [
                float(cell.text.removesuffix(cell.find("span")[0].text)) for cell in line.find("td") if value_of(cell)
            ]
            assert sum(shares) == pytest.approx(100, abs=0.3)


def test_confusion__column_for_no_class_where_something_has_none(tmp_path: Path) -> None:
    confusions = {"rgb+depth": [[5, 1, 0], [0, 2, 4]]}
    page = page_of(tmp_path, make_record(["rgb", "depth"], confusions=confusions))
    (table,) = page.find("section", id="confusion")[0].find("table")
    assert [cell.text for cell in table.find("thead")[0].find("th")] == ["is, and is called", "no", "yes", "no class"]
    assert [cell.text for cell in rows_of(table)[1].find("td")] == ["·0", "33.32", "66.74"]


def test_confusion__of_many_classes_is_a_list_of_the_largest(tmp_path: Path) -> None:
    count = MOST_CLASSES + 1
    counts = [
        [1 if column in (place, (place + 1) % count) else 0 for column in range(count + 1)] for place in range(count)
    ]
    counts[3][7] = 98
    record = make_record(["rgb", "depth"], confusions={"rgb+depth": counts}, classes=[f"c{n}" for n in range(count)])
    (table,) = page_of(tmp_path, record).find("section", id="confusion")[0].find("table")
    assert len(rows_of(table)) == LISTED
    assert [cell.text for cell in rows_of(table)[0].find("td")] == ["c7", "98", "98.0"]
    assert rows_of(table)[0].find("th")[0].text == "c3"


def test_classes__recall_and_precision_are_counted_from_confusions(tmp_path: Path) -> None:
    confusions = {"rgb+depth": [[6, 2, 0], [1, 3, 0]], "rgb": [[0, 8, 0], [0, 4, 0]]}
    page = page_of(tmp_path, make_record(["rgb", "depth"], confusions=confusions))
    (table,) = page.find("table", id="class-table")
    assert [numbers(row) for row in rows_of(table)] == [[0.75, 0.0, 6 / 7, None], [0.75, 1.0, 0.6, 4 / 12]]
    assert page.find("title", id="fig-classes-title")[0].text == "recall of each class, worst (rgb) and complete"


def test_customised__differences_are_those_of_the_results(tmp_path: Path) -> None:
    rows = [
        {
            "combination": name,
            "unified": {"accuracy": 0.5, "auroc": 0.75},
            "customised": {"accuracy": 0.5 + gain, "auroc": 0.8},
            "difference": {"accuracy": gain, "auroc": 0.05},
            "run": f"customised/{name}",
            "samples": 100,
            "degenerate": name == "depth",
        }
        for name, gain in (("rgb", 0.125), ("depth", -0.25), ("rgb+depth", 0.0))
    ]
    record = make_record(["rgb", "depth"])
    means = {part: dict(rows[0][part]) for part in ("unified", "customised", "difference")}
    more = {"means": means, "customised": {"method": "plain", "balancer": "none", "overrides": ["train.epochs=3"]}}
    page = page_of(tmp_path, record, customised={**record, **more, "rows": rows})
    (table,) = page.find("table", id="customised-table")
    for line, row in zip(rows_of(table), rows, strict=True):
        assert numbers(line) == [0.5, row["customised"]["accuracy"], row["difference"]["accuracy"], 100]
    (overview,) = page.find("tr", data_protocol="customised")
    assert value_of(overview.find("td")[1]) == -0.25
    (mean,) = table.find("tr", data_aggregate="mean")
    assert numbers(mean) == [0.5, 0.625, 0.125]
    (others,) = page.find("table", id="customised-others")
    assert [numbers(row) for row in rows_of(others)] == [[0.75, 0.8, 0.05]] * 3
    said = page.find("section", id="customised")[0].text
    assert "with method plain and train.epochs=3" in said
    assert table.find("tr", data_combination="depth")[0].find("th")[0].text == "depth degenerate"
    assert "customised/depth" in page.find("section", id="customised")[0].text


def test_training__modalities_are_followed_over_epochs(made: Made) -> None:
    lines = [json.loads(line) for line in (made.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    chosen = made.protocols["combinations"]["selection"]["epoch"]
    for row in rows_of(made.table("dominance-table")):
        key = f"validation/{row.attributes['data-modality']}/accuracy"
        assert numbers(row)[:3] == [epochs[0][key], epochs[chosen][key], epochs[-1][key]]


def test_training__ahead_means_better_also_of_errors(tmp_path: Path) -> None:
    errors = [(50.0, 60.0), (55.0, 40.0), (30.0, 30.0)]
    lines = [
        {"kind": "epoch", "step": epoch, "epoch": epoch, "validation/rgb/mae": rgb, "validation/depth/mae": depth}
        for epoch, (rgb, depth) in enumerate(errors)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (table,) = page_of(tmp_path, regression_record(ERRORS)).find("table", id="dominance-table")
    assert [row.find("td")[-1].text for row in rows_of(table)] == ["1 of 3", "1 of 3"]


def test_page__of_every_protocol_is_accessible(made: Made) -> None:
    page = made.page
    assert all(table.find("caption")[0].text for table in page.find("table"))
    assert all(head.attributes.get("scope") for head in page.find("th"))
    for svg in page.find("svg"):
        if svg.attributes.get("aria-hidden") != "true" and svg.attributes.get("focusable") != "false":
            assert svg.attributes["role"] == "img"
            assert svg.find("desc")[0].text
    named = [
        name
        for tag in ("section", "h2", "table", "title", "desc")
        for node in page.find(tag)
        if (name := node.attributes.get("id"))
    ]
    assert len(named) == len(set(named))


def test_page__of_every_protocol_needs_no_network(made: Made) -> None:
    text = (made.folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|<link|<img|\ssrc=|\shref=\"(?!#)|@import|url\(", text)
    assert "default-src 'none'" in text
