"""Comparison of groups of runs: grouping, labels, numbers, files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from fake_runs import GAINS, NOTHING, combinations, config_with, facts, reasons, write_group, write_run
from scipy import stats

from robustmm.errors import RobustmmError
from robustmm.report.compare import CompareRequest, compare, write_comparison
from robustmm.report.comparison_tables import headline, value_table
from robustmm.report.runs import find_runs


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """``plain`` as reference and ``drop``, better in every seed."""
    write_group(tmp_path, "a_plain", NOTHING)
    write_group(tmp_path, "b_drop", GAINS, method__name="modality_dropout", optimizer__lr=0.02)
    return tmp_path


def comparison(compared: dict[str, Any], quantity: str) -> dict[str, Any]:
    return dict(next(one for one in compared["comparisons"] if one["quantity"] == quantity))


# Numbers


def test_compare__means_deviation_and_test_by_hand(two: Path) -> None:
    compared = compare(CompareRequest([two]))
    plain, drop = compared["groups"]
    assert (plain["label"], drop["label"], compared["reference"]) == ("plain", "modality_dropout", "plain")
    assert plain["quantities"]["mean"]["values"] == pytest.approx([0.6, 0.61, 0.62, 0.63])
    assert plain["quantities"]["mean"]["mean"] == pytest.approx(0.615)
    assert plain["quantities"]["worst"]["mean"] == pytest.approx(0.515)
    assert plain["quantities"]["mean"]["sd"] == pytest.approx(0.0129099445)
    low, high = plain["quantities"]["mean"]["interval"]
    assert 0.6 <= low < 0.615 < high <= 0.63
    one = comparison(compared, "mean")
    assert one["differences"] == pytest.approx(GAINS)
    assert one["difference"] == pytest.approx(0.05125)
    theirs = stats.ttest_1samp(GAINS, 0)
    assert one["p_t"] == one["p"] == pytest.approx(theirs.pvalue)
    assert one["interval"] == pytest.approx(list(theirs.confidence_interval(0.95)))
    assert one["p_sign_flip"] == 2 / 2**4
    assert one["significant"]
    assert one["better"]


def test_compare__points_are_combinations_over_seeds(two: Path) -> None:
    plain = compare(CompareRequest([two]))["groups"][0]
    assert [point["name"] for point in plain["points"]] == ["rgb", "depth", "rgb+depth"]
    assert plain["points"][1]["mean"] == pytest.approx(0.515)
    assert len(plain["points"][1]["values"]) == 4


def test_compare__holm_counts_the_groups_of_one_column(two: Path) -> None:
    write_group(two, "c_other", [0.01, 0.02, -0.01, 0.03], method__name="dmrnet")
    compared = compare(CompareRequest([two]))
    mean = [one for one in compared["comparisons"] if one["quantity"] == "mean"]
    low, high = sorted(mean, key=lambda one: one["p"])
    assert low["p_holm"] == pytest.approx(2 * low["p"])
    assert high["p_holm"] == pytest.approx(high["p"])


def test_compare__an_error_is_better_when_smaller(two: Path) -> None:
    compared = compare(CompareRequest([two], metric="ece"))
    one = comparison(compared, "mean")
    assert one["difference"] < 0
    assert one["better"]
    assert headline(compared).startswith("modality_dropout is better than plain in mean by 0.0256 (p ")


def test_compare__sign_flips_decide_when_asked(two: Path) -> None:
    compared = compare(CompareRequest([two], test="sign-flip"))
    one = comparison(compared, "mean")
    assert one["p"] == one["p_sign_flip"] == 0.125
    assert not one["significant"]
    assert compared["statistics"]["test"] == "exact sign-flip permutation test"


def test_compare__reference_by_label_or_name(two: Path) -> None:
    for name in ("modality_dropout", "b_drop"):
        compared = compare(CompareRequest([two], reference=name))
        assert compared["reference"] == "modality_dropout"
        assert comparison(compared, "mean")["difference"] == pytest.approx(-0.05125)
    assert reasons(two, reference="plian") == [
        "--reference plian: is no group - did you mean 'plain'? Known: plain, modality_dropout"
    ]


def test_compare__one_group_has_means_and_no_tests(tmp_path: Path) -> None:
    write_group(tmp_path, "alone", NOTHING)
    compared = compare(CompareRequest([tmp_path]))
    assert compared["comparisons"] == []
    assert compared["groups"][0]["label"] == "alone"
    assert headline(compared) == "one group: nothing to compare with"


# Groups and labels


def test_labels__name_as_few_keys_as_tell_groups_apart(tmp_path: Path) -> None:
    for fusion in ("sum", "gated"):
        for lr in (0.1, 0.2):
            write_group(tmp_path, f"{fusion}{lr}", NOTHING, model__fusion={"name": fusion}, optimizer__lr=lr)
    compared = compare(CompareRequest([tmp_path]))
    labels = {group["label"] for group in compared["groups"]}
    assert labels == {"fusion=sum, lr=0.1", "fusion=sum, lr=0.2", "fusion=gated, lr=0.1", "fusion=gated, lr=0.2"}


def test_labels__hidden_differences_are_told(two: Path) -> None:
    texts = [remark["text"] for remark in compare(CompareRequest([two]))["remarks"]]
    assert "The groups also differ in optimizer.lr; comparison.json has the values." in texts
    assert compare(CompareRequest([two]))["groups"][1]["differences"] == {
        "method.name": "modality_dropout",
        "optimizer.lr": 0.02,
    }


def test_groups__what_changes_no_score_parts_none(tmp_path: Path) -> None:
    write_group(tmp_path, "a", NOTHING)
    for seed, path in enumerate(sorted((tmp_path / "a").iterdir())):
        config = config_with(name=f"other{seed}", seed=seed, train__threads=seed + 1, callbacks=["console"])
        config["data"]["dataset"]["split_seed"] = seed
        (path / "config.yaml").write_text(json.dumps(config))
    assert len(compare(CompareRequest([tmp_path]))["groups"]) == 1


def test_groups__a_key_that_follows_the_seed_is_a_split(tmp_path: Path) -> None:
    for seed in range(3):
        config = config_with(seed=seed, data__dataset={"name": "demo", "subject": seed + 1})
        record = combinations(config, {"a": 0.5 + seed / 10, "a+b": 0.9})
        write_run(tmp_path / f"s{seed}", config, {"combinations": record})
    assert len(reasons(tmp_path)) > 1
    assert compare(CompareRequest([tmp_path], splits=["data.dataset.subject"]))["replicates"][2] == {
        "seed": 2,
        "data.dataset.subject": 3,
    }
    (tmp_path / "sweep.json").write_text(json.dumps({"varied": ["data.dataset.subject"], "members": []}))
    assert len(compare(CompareRequest([tmp_path]))["groups"]) == 1
    assert len(compare(CompareRequest(sorted(tmp_path.glob("s?"))))["groups"]) == 1


def test_find_runs__in_order_once_and_not_inside_a_run(two: Path) -> None:
    customised = two / "a_plain" / "s0" / "customised" / "rgb"
    write_run(customised, config_with(), {})
    found = find_runs([two / "b_drop", two, two / "a_plain" / "s1"])
    assert [str(path.relative_to(two)) for path in found] == [
        *(f"b_drop/s{seed}" for seed in range(4)),
        *(f"a_plain/s{seed}" for seed in range(4)),
    ]


def test_compare__reference_is_the_first_group_of_a_sweep_s_plan(two: Path) -> None:
    write_group(two, "c_later", GAINS, method__name="dmrnet")
    assert compare(CompareRequest([two]))["reference"] == "plain"
    members = [{"name": f"{group}/s{seed}", "group": group} for seed in range(4) for group in ("b_drop", "a_plain")]
    (two / "sweep.json").write_text(json.dumps({"varied": [], "members": members}))
    compared = compare(CompareRequest([two]))
    assert [group["name"] for group in compared["groups"]] == ["b_drop", "a_plain", "c_later"]
    assert compared["reference"] == "modality_dropout"


def test_find_runs__says_where_there_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RobustmmError) as caught:
        find_runs([tmp_path / "empty", tmp_path / "nowhere"])
    assert str(caught.value).splitlines() == [
        f"{tmp_path}/nowhere is no folder",
        f"{tmp_path}/empty holds no run: no config.yaml in it or below",
    ]


# Other protocols


def missing_rate(root: Path, name: str, gain: float, *, digest: str = "abc", **changes: Any) -> None:
    """Three runs measured at two rates under two masks each."""
    for seed in range(3):
        config = config_with(name=name, seed=seed, **changes)
        rows = [
            {
                "pattern": pattern,
                "modality": None,
                "rate": rate,
                "seed": mask,
                "metrics": {"accuracy": 0.8 - rate / 2 + gain + 0.01 * seed + 0.02 * mask},
                "samples": 40,
                "excluded": 0,
                "degenerate": rate == 0.4 and pattern == "block" and gain > 0,
            }
            for pattern in ("bernoulli", "block")
            for rate in (0.0, 0.4)
            for mask in (0, 1)
        ]
        masks = {"file": "eval/masks.npz", "sha256": f"{digest}{seed}", "seeds": [0, 1]}
        record = {**facts(config), "rows": rows, "masks": masks}
        write_run(root / name / f"s{seed}", config, {"missing-rate": record})


def test_missing_rate__mean_over_rates_and_curves(tmp_path: Path) -> None:
    missing_rate(tmp_path, "a", 0.0)
    missing_rate(tmp_path, "b", 0.1, method__name="dmrnet")
    compared = compare(CompareRequest([tmp_path], protocol="missing-rate"))
    assert compared["quantities"] == ["mean", "bernoulli", "block"]
    own = compared["groups"][0]
    assert own["quantities"]["mean"]["values"] == pytest.approx([0.71, 0.72, 0.73])  # 0.8 and 0.6, masks add 0.01
    assert [(point["series"], point["at"]) for point in own["points"]] == [
        ("bernoulli", 0.0),
        ("bernoulli", 0.4),
        ("block", 0.0),
        ("block", 0.4),
    ]
    assert own["points"][1]["mean"] == pytest.approx(0.62)
    assert own["points"][1]["name"] == "bernoulli 0.4"
    degenerate = compared["remarks"][0]["text"]
    assert degenerate.startswith("dmrnet: 3 of 12 scores are degenerate (block 0.4)")
    assert compared["groups"][1]["quantities"]["block"]["values"][0] == pytest.approx((0.91 + 0.25) / 2)


def test_missing_rate__other_masks_are_refused(tmp_path: Path) -> None:
    missing_rate(tmp_path, "a", 0.0)
    missing_rate(tmp_path, "b", 0.1, digest="xyz", method__name="dmrnet")
    assert reasons(tmp_path, protocol="missing-rate") == [
        "plain and dmrnet are measured under different masks, at seed 0: abc0 and xyz0, seed 1: abc1 and xyz1, "
        "seed 2: abc2 and xyz2; evaluate with the same masks"
    ]


def test_corruption__mean_and_clean(tmp_path: Path) -> None:
    for seed in range(3):
        config = config_with(seed=seed)
        rows = [
            {
                "modality": name,
                "corruption": "noise",
                "severity": severity,
                "metrics": {"accuracy": 0.9 - 0.1 * severity - 0.1 * (name == "rgb")},
                "samples": 40,
                "excluded": 0,
                "degenerate": False,
            }
            for name in ("rgb", "depth")
            for severity in (1, 2)
        ]
        record = {
            **facts(config),
            "rows": rows,
            "clean": {"accuracy": 0.95},
            "severities": [1, 2],
            "corruption_seed": 0,
        }
        write_run(tmp_path / f"s{seed}", config, {"corruption": record})
    own = compare(CompareRequest([tmp_path], protocol="corruption"))["groups"][0]["quantities"]
    means = {name: value["mean"] for name, value in own.items()}
    assert means == pytest.approx({"mean": 0.7, "rgb noise": 0.65, "depth noise": 0.75, "clean": 0.95})


def test_calibration__takes_its_own_score(tmp_path: Path) -> None:
    for seed in range(3):
        config = config_with(seed=seed)
        rows = [{"combination": "a", "metrics": {"ece": 0.1 * seed}, "samples": 40}]
        write_run(tmp_path / f"s{seed}", config, {"calibration": {**facts(config), "rows": rows}})
    assert compare(CompareRequest([tmp_path], protocol="calibration"))["metric"] == "ece"


def test_expected__rows_of_different_kinds_are_quantities_of_their_own(tmp_path: Path) -> None:
    for seed in range(3):
        config = config_with(seed=seed)
        names = ["mean of all combinations", *(f"every modality fails with {p}" for p in (0.05, 0.1, 0.2, 0.3))]
        rows = [
            {"name": name, "drop": None, "metrics": {"accuracy": 0.5 + place / 10}} for place, name in enumerate(names)
        ]
        write_run(tmp_path / f"s{seed}", config, {"expected": {**facts(config), "rows": rows}})
    compared = compare(CompareRequest([tmp_path], protocol="expected"))
    assert compared["quantities"] == names
    table = value_table(compared)  # turned, since there are many
    assert table.header == ("group", "plain_demo")
    assert [row[0] for row in table.rows] == ["seeds", *names]
    assert table.rows[2][1].startswith("0.6000 ± 0.0000")


def test_calibration__means_leave_out_what_some_run_lacks(tmp_path: Path) -> None:
    for seed in range(3):
        config = config_with(seed=seed)
        scores = {"a": 0.1 * seed, "b": 0.2 if seed else None, "c": 0.3}
        rows = [{"combination": name, "metrics": {"ece": score}, "samples": 40} for name, score in scores.items()]
        write_run(tmp_path / f"s{seed}", config, {"calibration": {**facts(config), "rows": rows}})
    compared = compare(CompareRequest([tmp_path], protocol="calibration"))
    assert compared["groups"][0]["quantities"]["mean"]["values"] == pytest.approx([0.15, 0.2, 0.25])
    assert compared["groups"][0]["points"][1]["values"] == [None, 0.2, 0.2]
    assert "Some run has no value at b; means over points leave these out." in [
        remark["text"] for remark in compared["remarks"]
    ]


def test_compare__a_quantity_without_a_value_is_left_out_and_told(tmp_path: Path) -> None:
    paths = write_group(tmp_path, "a", NOTHING[:3])
    results = json.loads((paths[1] / "results.json").read_text())
    results["protocols"]["combinations"]["aggregates"]["complete"]["accuracy"] = None
    (paths[1] / "results.json").write_text(json.dumps(results))
    compared = compare(CompareRequest([tmp_path]))
    assert compared["quantities"] == ["mean", "worst"]
    assert compared["remarks"][0]["text"] == "Not compared, since some run has no value of it: complete."


# Files


def test_write_comparison__all_files_have_the_same_numbers(two: Path, tmp_path: Path) -> None:
    compared = compare(CompareRequest([two]))
    paths = write_comparison(compared, tmp_path / "out")
    assert [path.name for path in paths] == [f"comparison.{kind}" for kind in ("json", "csv", "md", "tex")]
    assert json.loads(paths[0].read_text()) == compared
    rows = list(csv.DictReader(paths[1].open()))
    assert len(rows) == 6
    drop = next(row for row in rows if (row["group"], row["quantity"]) == ("modality_dropout", "mean"))
    assert float(drop["difference"]) == comparison(compared, "mean")["difference"]
    assert rows[0]["p_holm"] == ""
    shown = value_table(compared).rows[1][2]
    assert shown.startswith("0.6663 ± 0.0")
    assert f"**{shown}**" in paths[2].read_text()
    latex = paths[3].read_text()
    assert rf"modality\_dropout & 4 & \textbf{{{shown.replace('±', '$' + chr(92) + 'pm$')}}}" in latex
    assert latex.count(r"\toprule") == 2


def test_value_table__best_is_bold_only_where_significant(tmp_path: Path) -> None:
    write_group(tmp_path, "a", NOTHING)
    write_group(tmp_path, "b", [0.05, -0.04, 0.02, 0.0], method__name="dmrnet")
    assert value_table(compare(CompareRequest([tmp_path]))).bold == frozenset()
    write_group(tmp_path, "c", GAINS, method__name="umt")
    assert value_table(compare(CompareRequest([tmp_path]))).bold == {(2, 2), (2, 3), (2, 4)}
    compared = compare(CompareRequest([tmp_path / "a", tmp_path / "c"], reference="umt"))
    assert value_table(compared).bold == {(0, 2), (0, 3), (0, 4)}
