"""Mean, worst, complete and drop, with degenerate predictions held down."""

import math

import pytest
import torch

from robustmm import Metrics
from robustmm.engine.evaluate import Evaluation, Tally
from robustmm.engine.scores import summarise
from robustmm.tasks.classification import ClassificationTask
from robustmm.tasks.regression import RegressionTask
from robustmm.tasks.segmentation import SegmentationTask

TASK = ClassificationTask(["a", "b", "c", "d"])
DIRECTIONS = {"accuracy": "max", "ece": "min"}


class Fixed(Metrics):
    """Scores that were measured elsewhere."""

    def __init__(self, scores: dict[str, float | None], *, degenerate: bool = False, count: int = 10) -> None:
        self.scores, self._degenerate, self.count = scores, degenerate, count

    def update(self, logits, target) -> None:
        raise AssertionError("these scores are fixed")

    merge = update

    def compute(self):
        return dict(self.scores)

    @property
    def degenerate(self) -> bool:
        return self._degenerate


def row(accuracy, ece=0.1, *, degenerate=False, **counts) -> Tally:
    return Tally(Fixed({"accuracy": accuracy, "ece": ece}, degenerate=degenerate), **counts)


def summary(rgb: Tally, depth: Tally, both: Tally):
    evaluation = Evaluation({("rgb",): rgb, ("depth",): depth, ("rgb", "depth"): both}, modalities=("rgb", "depth"))
    return summarise(evaluation, TASK, DIRECTIONS)


def test_summarise__mean_worst_complete_and_drop():
    own = summary(row(0.6, 0.3), row(0.3, 0.2), row(0.9, 0.1))
    assert own.aggregates == {
        "mean": {"accuracy": pytest.approx(0.6), "ece": pytest.approx(0.2)},
        "worst": {"accuracy": 0.3, "ece": 0.3},
        "complete": {"accuracy": 0.9, "ece": 0.1},
        "drop": {"accuracy": pytest.approx(0.3), "ece": pytest.approx(-0.1)},
    }


def test_summarise__rows_hold_scores_of_classes_where_the_task_has_them():
    task = SegmentationTask(("wall", "floor"))
    tally = Tally(task.metrics())
    target = torch.tensor([[[0, 0, 1, 255]]])
    tally.update(torch.tensor([[[[1.0, 1.0, 1.0, 1.0]], [[0.0, 0.0, 0.0, 0.0]]]]), target)
    (found,) = summarise(Evaluation({("rgb",): tally}, modalities=("rgb",)), task, task.directions).rows
    assert found["per_class"] == {"iou": [pytest.approx(2 / 3), 0.0], "dice": [pytest.approx(0.8), 0.0]}
    assert found["degenerate"]
    assert "per_class" not in summary(row(0.6), row(0.3), row(0.9)).rows[0]


def test_summarise__flat_holds_aggregates_and_each_combination():
    own = summary(row(0.6), row(0.3), row(0.9))
    assert own.flat["worst/accuracy"] == 0.3
    assert own.flat["rgb+depth/accuracy"] == 0.9
    assert own.flat["depth/ece"] == 0.1
    assert len(own.flat) == 2 * (4 + 3)


def test_summarise__rows_carry_counts():
    own = summary(row(0.6, excluded=3, incomplete=2), row(0.3), row(0.9))
    assert own.rows[0] == {
        "combination": "rgb",
        "metrics": {"accuracy": 0.6, "ece": 0.1},
        "samples": 10,
        "excluded": 3,
        "incomplete": 2,
        "degenerate": False,
    }
    assert [own_row["combination"] for own_row in own.rows] == ["rgb", "depth", "rgb+depth"]


def test_summarise__degenerate_combination_counts_as_chance_and_keeps_what_was_measured():
    own = summary(row(0.7, 0.05, degenerate=True), row(0.5, 0.2), row(0.9, 0.2))
    assert own.rows[0]["metrics"] == {"accuracy": 0.7, "ece": 0.05}
    assert own.rows[0]["degenerate"]
    assert own.flat["rgb/accuracy"] == 0.25
    assert own.flat["rgb/ece"] == 0.5
    assert own.aggregates["mean"]["accuracy"] == pytest.approx((0.25 + 0.5 + 0.9) / 3)
    assert own.aggregates["worst"] == {"accuracy": 0.25, "ece": 0.5}


def test_summarise__degenerate_combination_is_not_lifted_to_chance():
    own = summary(row(0.1, 0.8, degenerate=True), row(0.5), row(0.9))
    assert (own.flat["rgb/accuracy"], own.flat["rgb/ece"]) == (0.1, 0.8)


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf])
def test_summarise__score_without_meaning_stays_out_of_the_mean(nothing):
    own = summary(row(nothing), row(0.5), row(0.9))
    assert own.aggregates["mean"]["accuracy"] == pytest.approx(0.7)
    assert own.aggregates["worst"]["accuracy"] == 0.5
    assert own.flat["rgb/accuracy"] is None


@pytest.mark.parametrize("nothing", [None, math.nan])
def test_summarise__degenerate_combination_cannot_leave_the_mean_by_having_no_value(nothing):
    own = summary(row(nothing, nothing, degenerate=True), row(0.5, 0.2), row(0.9, 0.2))
    assert own.aggregates["worst"] == {"accuracy": 0.25, "ece": 0.5}
    assert own.aggregates["mean"]["accuracy"] == pytest.approx((0.25 + 0.5 + 0.9) / 3)


def test_summarise__score_that_no_combination_has_is_none_throughout():
    own = summary(row(0.7, None, degenerate=True), row(0.5, None), row(0.9, None))
    assert {name: values["ece"] for name, values in own.aggregates.items()} == dict.fromkeys(own.aggregates)
    assert own.flat["rgb/ece"] is None


def test_summarise__without_a_complete_score_there_is_no_drop():
    own = summary(row(0.6), row(0.5), row(None))
    assert own.aggregates["complete"]["accuracy"] is None
    assert own.aggregates["drop"]["accuracy"] is None
    assert own.aggregates["mean"]["accuracy"] == pytest.approx(0.55)


def test_summarise__unimodal_scores_have_rows_and_stay_out_of_the_aggregates():
    evaluation = Evaluation({("rgb",): row(0.6)}, {"rgb": row(0.2, excluded=1)}, "split")
    own = summarise(evaluation, TASK, DIRECTIONS)
    assert [(own_row["combination"], own_row["metrics"]["accuracy"]) for own_row in own.unimodal] == [("rgb", 0.2)]
    assert own.aggregates["mean"]["accuracy"] == 0.6


def test_summarise__constant_prediction_on_unbalanced_labels_is_no_success():
    tally = Tally(TASK.metrics())
    tally.update(torch.tensor([[9.0, 0, 0, 0]]).expand(10, 4), torch.tensor([0] * 9 + [1]))
    own = summarise(Evaluation({("rgb",): tally}), TASK, TASK.directions)
    assert own.rows[0]["metrics"]["accuracy"] == pytest.approx(0.9)
    assert own.flat["mean/accuracy"] == 0.25


def test_summarise__logits_that_are_not_finite_never_score():
    tally = Tally(TASK.metrics())
    tally.update(torch.full((4, 4), torch.nan), torch.tensor([0, 1, 2, 3]))
    own = summarise(Evaluation({("rgb",): tally}), TASK, TASK.directions)
    assert own.rows[0]["degenerate"]
    for metric, direction in TASK.directions.items():
        value = own.flat[f"mean/{metric}"]
        assert value is None or (value <= 0.25 if direction == "max" else value >= 0.5)


def test_summarise__has_no_complete_score_where_the_complete_combination_was_not_asked_for() -> None:
    evaluation = Evaluation({("rgb",): row(0.6)}, modalities=("rgb", "depth"))
    aggregates = summarise(evaluation, TASK, TASK.directions).aggregates
    assert aggregates["complete"]["accuracy"] is None
    assert aggregates["drop"]["accuracy"] is None


def test_summarise__counts_a_degenerate_row_without_a_value_as_the_largest_error() -> None:
    # An unbounded error such as the negative log-likelihood: 0.5 would be a good value.
    own = summary(row(None, None, degenerate=True), row(0.5, 2.25), row(0.9, 0.25))
    assert own.aggregates["worst"]["ece"] == 2.25
    assert own.aggregates["mean"]["ece"] == pytest.approx((2.25 + 2.25 + 0.25) / 3)


def regression_task() -> RegressionTask:
    task = RegressionTask(["age"])
    task.fit(torch.tensor([10.0, 30.0]))  # mean 20, deviation 10
    return task


def test_summarise__a_constant_regression_counts_as_the_mean_of_the_training_targets_at_best():
    task, lucky, told = regression_task(), Tally(regression_task().metrics()), Tally(regression_task().metrics())
    lucky.update(torch.zeros(4, 1), torch.tensor([19.0, 21.0, 19.0, 21.0]))  # test targets that happen to lie there
    told.update(torch.tensor([[-0.5], [0.5]]), torch.tensor([17.0, 23.0]))
    both = {("rgb",): lucky, ("rgb", "depth"): told}
    own = summarise(Evaluation(both, modalities=("rgb", "depth")), task, task.directions)
    assert own.rows[0]["metrics"]["mae"] == pytest.approx(1)
    assert [row["degenerate"] for row in own.rows] == [True, False]
    assert own.flat["rgb/mae"] == pytest.approx(10)
    assert own.flat["rgb/correlation"] == 0
    assert own.aggregates["worst"]["mae"] == pytest.approx(10)
    assert own.aggregates["complete"]["mae"] == pytest.approx(2)
    assert own.aggregates["mean"]["nll"] is None


def test_summarise__a_constant_worse_than_the_mean_keeps_its_error():
    task, tally = regression_task(), Tally(regression_task().metrics())
    tally.update(torch.full((2, 1), 9.0), torch.tensor([10.0, 30.0]))
    own = summarise(Evaluation({("rgb",): tally}), task, task.directions)
    assert own.flat["rgb/mae"] == pytest.approx(90)


def test_summarise__without_a_known_chance_nothing_is_held_down():
    task = regression_task()
    rows = {("rgb",): (0.9, True), ("depth",): (0.2, False), ("rgb", "depth"): (None, True)}
    tallies = {
        combo: Tally(Fixed({"mae": 1.0, "of_a_plugin": value}, degenerate=degenerate))
        for combo, (value, degenerate) in rows.items()
    }
    own = summarise(Evaluation(tallies), task, {"mae": "min", "of_a_plugin": "max"})
    assert own.flat["rgb/of_a_plugin"] == 0.9
    assert own.flat["rgb+depth/of_a_plugin"] == 0.2  # without a value it counts as the worst of all
