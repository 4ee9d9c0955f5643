"""Why runs are not compared: every reason by its text, and what lifts it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_runs import GAINS, NOTHING, combination_rows, config_with, reasons, write_group, write_run

from robustmm.report.compare import CompareRequest, compare


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """``plain`` as reference and ``drop``, better in every seed."""
    write_group(tmp_path, "a_plain", NOTHING)
    write_group(tmp_path, "b_drop", GAINS, method__name="modality_dropout", optimizer__lr=0.02)
    return tmp_path


def test_refusal__too_few_seeds_and_unequal_seeds_at_once(tmp_path: Path) -> None:
    write_group(tmp_path, "a", [0.0, 0.0])
    write_group(tmp_path, "b", [0.0, 0.0, 0.0, 0.0], method__name="dmrnet")
    assert reasons(tmp_path) == [
        "plain: 2 seeds; each group needs at least 3",
        "plain: seed 2 (split_seed 2), seed 3 (split_seed 3) missing, which other groups have; train them, or leave "
        "the others' runs out",
    ]


def test_refusal__the_same_seed_twice(tmp_path: Path) -> None:
    paths = write_group(tmp_path, "a", NOTHING)
    write_group(tmp_path / "again", "a", [0.0])
    (line,) = reasons(tmp_path)
    assert line == (
        f"a: {paths[0]} and {tmp_path}/again/a/s0 are the same seed and split (seed 0 (split_seed 0)); leave one out"
    )


def test_refusal__runs_that_did_not_finish(two: Path) -> None:
    write_run(two / "c" / "s0", config_with(), {}, mark="FAILED")
    write_run(two / "c" / "s1", config_with(), {}, mark="")
    assert reasons(two) == [
        f"{two}/c/s0 failed; finish it with --resume, run it again, or leave it out",
        f"{two}/c/s1 did not finish; finish it with --resume, run it again, or leave it out",
    ]


def test_refusal__damaged_files(tmp_path: Path) -> None:
    paths = write_group(tmp_path, "a", NOTHING)
    (paths[0] / "config.yaml").write_text("a: [")
    (paths[1] / "config.yaml").write_text("")
    lines = reasons(tmp_path)
    assert lines[0].startswith(f"{paths[0]}/config.yaml is damaged: while parsing")
    assert lines[1] == f"{paths[1]}/config.yaml is damaged: it is no mapping of keys; leave the run out"
    (tmp_path / "sweep.json").write_text("[]")
    assert reasons(tmp_path)[0].startswith(f"{tmp_path}/sweep.json is damaged (")


def test_refusal__different_data_sets_in_one_line(tmp_path: Path) -> None:
    write_group(tmp_path, "a", NOTHING)
    other = {"name": "other", "test_subject": "p07", "scale": 2}
    write_group(tmp_path, "b", NOTHING[:2], model__missing_policy={"name": "token"}, data__dataset=other)
    assert reasons(tmp_path) == ["different data sets do not compare: demo, other; give runs of one of them"]


def test_refusal__a_key_of_the_data_set_may_name_the_split(tmp_path: Path) -> None:
    for subject in ("p07", "p19", "p26"):
        dataset = {"name": "demo", "test_subject": subject}
        write_group(tmp_path, subject, NOTHING[:1], data__dataset=dataset, follow_split=False)
    key = "data.dataset.test_subject"
    assert reasons(tmp_path)[-1] == (
        f"{key} differs (p07, p19, p26), so scores do not compare; if it names the split, say so with --split {key}; "
        f"if it is what is compared, say so with --by {key}"
    )
    assert len(compare(CompareRequest([tmp_path], splits=[key]))["groups"]) == 1


def test_refusal__other_modalities_and_other_missing_policy(tmp_path: Path) -> None:
    write_group(tmp_path, "a", NOTHING)
    write_group(tmp_path, "b", NOTHING, model__missing_policy={"name": "token"}, data__modalities=["rgb"])
    lines = reasons(tmp_path)
    assert lines == [
        "data.modalities differs (None, ['rgb']), so scores do not compare; if it is what is compared, say so with "
        "--by data.modalities",
        "model.missing_policy.name differs (zero_feature, token), so scores do not compare; if it is what is compared, "
        "say so with --by model.missing_policy",
    ]


def test_by__lifts_the_refusal_of_the_named_key(tmp_path: Path) -> None:
    write_group(tmp_path, "a", NOTHING)
    write_group(tmp_path, "b", GAINS, model__missing_policy={"name": "token"})
    compared = compare(CompareRequest([tmp_path], by=["model.missing_policy"]))
    assert [group["label"] for group in compared["groups"]] == ["missing_policy=zero_feature", "missing_policy=token"]
    warning = compared["remarks"][0]
    assert warning["kind"] == "warning"
    assert "differ in model.missing_policy.name" in warning["text"]


def test_by__refuses_what_else_differs_and_keys_that_are_not_there(two: Path) -> None:
    assert reasons(two, by=["method"]) == [
        "groups differ not only in method but also in optimizer.lr; name these with --by too, or compare runs that "
        "share them"
    ]
    assert compare(CompareRequest([two], by=["method", "optimizer"]))["by"] == ["method", "optimizer"]
    assert reasons(two, by=["method.nam"]) == [
        "--by method.nam: the runs' configurations have no such key - did you mean 'method.name'?"
    ]
    assert reasons(two, by=["methd", "method", "optimizer.lr"]) == [
        "--by methd: the runs' configurations have no such key - did you mean 'method.name'?"
    ]


def test_refusal__facts_of_the_data(tmp_path: Path) -> None:
    write_group(tmp_path, "a", NOTHING)
    write_group(tmp_path, "b", NOTHING, method__name="dmrnet", record={"data": {"test_samples": 39}})
    lines = reasons(tmp_path)
    assert lines[1] == (
        "plain and dmrnet: facts of the data differ in 'test_samples', at seed 0 (split_seed 0): 40 and 39, seed 1 "
        "(split_seed 1): 40 and 39, seed 2 (split_seed 2): 40 and 39 and 1 more"
    )


def test_refusal__weights_selected_on_test(tmp_path: Path) -> None:
    write_group(
        tmp_path, "a", NOTHING[:3], record={"selection": {"part": "test", "metric": "m", "value": 1, "epoch": 0}}
    )
    (line,) = reasons(tmp_path)
    assert line.startswith("a: weights were selected on part 'test' (")
    assert line.endswith("scores on test mean something only where validation selected")


def test_refusal__another_score_or_direction(tmp_path: Path) -> None:
    write_group(tmp_path, "a", NOTHING[:3])
    write_group(tmp_path, "b", NOTHING[:3], method__name="dmrnet", record={"score": "ece"})
    (line,) = reasons(tmp_path)
    assert line.startswith("the runs have different main scores (accuracy in ")
    assert compare(CompareRequest([tmp_path], metric="accuracy"))["metric"] == "accuracy"
    assert len(reasons(tmp_path, metric="acuracy")) == 6
    assert (
        "has no score 'acuracy' - did you mean 'accuracy'? (it has accuracy, ece)"
        in reasons(tmp_path, metric="acuracy")[0]
    )
    write_group(
        tmp_path, "c", NOTHING[:3], method__name="umt", record={"directions": {"accuracy": "min", "ece": "min"}}
    )
    assert any(
        line.startswith("the direction of the score differs: 'max' in ")
        for line in reasons(tmp_path, metric="accuracy")
    )


def test_refusal__other_combinations(tmp_path: Path) -> None:
    write_group(tmp_path, "a", NOTHING[:3])
    rows = combination_rows({"rgb": 0.5, "lidar": 0.5, "rgb+lidar": 0.9})
    write_group(tmp_path, "b", NOTHING[:3], method__name="dmrnet", record={"rows": rows})
    line = reasons(tmp_path)[0]
    assert "has lidar, rgb+lidar and lacks depth, rgb+depth in combinations" in line


def test_refusal__protocol_that_is_not_there_or_cannot_be_compared(two: Path) -> None:
    assert reasons(two, protocol="latency")[0].startswith("--protocol latency: not one that is compared over seeds")
    (line,) = reasons(two, protocol="mising-rate")
    assert " over seeds - did you mean 'missing-rate'? Known: combinations, missing-rate, " in line
    assert " over seeds. Known: combinations, " in reasons(two, protocol="latency")[0]
    assert "has no results of protocol 'missing-rate'" in reasons(two, protocol="missing_rate")[0]
    lines = reasons(two, protocol="corruption")
    assert len(lines) == 8
    assert lines[0] == (
        f"{two}/a_plain/s0 has no results of protocol 'corruption' (it has combinations); run `robustmm evaluate "
        f"{two}/a_plain/s0 --protocol corruption`"
    )
