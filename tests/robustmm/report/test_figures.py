from __future__ import annotations

import pytest

from robustmm.report.figures import HEIGHT, LEFT, MOST_POINTS, axis_for, loss_figure, score_figure, worth_figure
from robustmm.report.summaries import Worth

SELECTION = {"metric": "rgb/f1", "epoch": 3}


def test_axis__ticks_are_round_and_inside() -> None:
    assert [tick.label for tick in axis_for([0.1, 0.9], 0, 100).ticks()] == ["0.2", "0.4", "0.6", "0.8"]
    assert [tick.label for tick in axis_for([0.004, 2.0], 0, 100, log=True).ticks()] == ["0.01", "0.1", "1"]


@pytest.mark.parametrize("values", [[], [0.0], [0.5, 0.5], [-3.0], [1e-9, 2e-9], [1e6]])
def test_axis__has_room_whatever_the_values(values: list[float]) -> None:
    axis = axis_for(values, 0, 100)
    assert all(0 < axis.at(value) < 100 for value in values)
    assert len(axis.ticks()) >= 2


def test_axis__grows_in_the_direction_asked_for() -> None:
    axis = axis_for([0.0, 1.0], 100, 0)
    assert axis.at(0.0) > axis.at(0.5) > axis.at(1.0)


def test_loss_figure__is_logarithmic_where_terms_lie_far_apart() -> None:
    near = loss_figure([{"step": 1, "loss/task": 2.0}, {"step": 2, "loss/task": 1.0}])
    far = loss_figure([{"step": 1, "loss/task": 2.0, "loss/kl": 0.001}])
    signed = loss_figure([{"step": 1, "loss/task": 2.0, "loss/kl": -0.001}])
    assert near is not None
    assert far is not None
    assert signed is not None
    assert [figure.y_label for figure in (near, far, signed)] == ["loss", "loss (log scale)", "loss"]


def test_loss_figure__total_leads_and_is_left_out_beside_a_single_term() -> None:
    one = loss_figure([{"step": 1, "loss/task": 2.0, "loss/total": 2.0}])
    two = loss_figure([{"step": 1, "loss/task": 2.0, "loss/kl": 1.0, "loss/total": 3.0}])
    assert one is not None
    assert two is not None
    assert [series.name for series in one.series] == ["task"]
    assert [series.name for series in two.series] == ["total", "task", "kl"]


def test_loss_figure__averages_long_records() -> None:
    figure = loss_figure([{"step": step, "loss/task": float(step % 2)} for step in range(1000)])
    assert figure is not None
    points = figure.series[0].path.split()
    assert len(points) == 200 <= MOST_POINTS
    heights = {float(point.split(",")[1]) for point in points}
    assert len(heights) > 1  # five alternating values average to 0.4 or 0.6
    assert figure.text == "Loss terms by optimiser step: task from 0.4 to 0.6."


def test_loss_figure__nothing_logged_draws_nothing() -> None:
    assert loss_figure([]) is None
    assert loss_figure([{"step": 1, "lr": 0.1}]) is None


def test_score_figure__shows_the_selection_metric_and_leaves_unknown_scores_out() -> None:
    epochs = [
        {"epoch": 0, "validation/mean/f1": 0.4, "validation/rgb/f1": None},
        {"epoch": 3, "validation/mean/f1": 0.6, "validation/rgb/f1": 0.5},
        {"epoch": 4, "validation/mean/f1": "nan", "validation/rgb/f1": 0.4},
    ]
    figure = score_figure(epochs, "f1", SELECTION)
    assert figure is not None
    assert [(series.name, len(series.dots)) for series in figure.series] == [("mean/f1", 2), ("rgb/f1", 2)]
    assert figure.rule is not None
    assert figure.rule.label == "selected: epoch 3"
    assert figure.rule.at == figure.series[0].dots[1].x
    assert score_figure([], "f1", SELECTION) is None


def test_worth_figure__draws_what_is_known() -> None:
    known = Worth("rgb", 0.4, 0.6, 0.2, 0.5, None, False, False)
    unknown = Worth("a_very_long_modality_name", None, None, None, 0.5, None, False, False)
    figure = worth_figure([known, unknown], "f1")
    without, with_it = figure.series
    assert len(without.dots) == len(with_it.dots) == len(figure.bars) == 1
    assert without.dots[0].x < with_it.dots[0].x
    assert [tick.label for tick in figure.y_ticks] == ["rgb", "a_very_long_modal…"]
    assert figure.height != HEIGHT
    assert figure.left > LEFT
