from __future__ import annotations

import itertools

import pytest

from robustmm.report.bar_rows import BarRow, bar_figure
from robustmm.report.curves import MOST_POINTS, NAME_STEP, Plot, Point, curve_figure
from robustmm.report.figure import HEIGHT, LEFT, WIDTH, axis_for
from robustmm.report.reliability import reliability_figure
from robustmm.report.sections.training import loss_figure, score_figure
from robustmm.report.sections.worth import worth_figure
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
    assert [tick.label for tick in figure.y_ticks] == ["rgb", "a_very_long_mod…"]
    assert figure.height != HEIGHT
    assert figure.left > LEFT


def test_curves__band_is_mean_and_deviation_there_and_back() -> None:
    points = [Point(0.0, 0.5, 0.1), Point(1.0, 0.4, 0.2)]
    figure = curve_figure({"bernoulli": points}, Plot("accuracy", "rate", "accuracy"))
    assert figure is not None
    (series,) = figure.series
    corners = [tuple(map(float, pair.split(","))) for pair in series.band.split()]
    heights = [y for _, y in corners]
    assert [x for x, _ in corners] == [*[x for x, _ in corners[:2]], *[x for x, _ in corners[1::-1]]]
    assert heights[3] - heights[0] == pytest.approx((heights[2] - heights[1]) / 2, abs=0.2)  # ± 0.1 and ± 0.2
    assert figure.text == "accuracy by rate: bernoulli from 0.5 to 0.4."


@pytest.mark.parametrize("deviations", [[None, None], [0.0, 0.0]])
def test_curves__without_deviation_have_no_band(deviations: list[float | None]) -> None:
    points = [Point(float(place), 0.5, sd) for place, sd in enumerate(deviations)]
    figure = curve_figure({"rgb": points}, Plot("t", "x", "y"))
    assert figure is not None
    assert figure.series[0].band == ""


def test_curves__names_beside_them_neither_touch_nor_leave_the_plot() -> None:
    curves = {f"m{number}": [Point(0, 0.5), Point(1, 0.5 + number / 1e4)] for number in range(9)}
    figure = curve_figure(curves, Plot("t", "x", "y", names_beside=True))
    assert figure is not None
    ends = [series.end for series in figure.series]
    heights = sorted(end.y for end in ends if end is not None)
    assert len(heights) == 9
    assert min(b - a for a, b in itertools.pairwise(heights)) >= NAME_STEP - 0.2
    assert heights[-1] <= figure.bottom
    assert not figure.legend


def test_curves__level_far_away_is_left_out() -> None:
    near, far = (
        curve_figure({"a": [Point(0, 0.5), Point(1, 0.6)]}, Plot("t", "x", "y", level=(level, "clean")))
        for level in (0.55, 0.1)
    )
    assert near is not None
    assert far is not None
    assert near.level is not None
    assert near.text.endswith("Line at clean.")
    assert far.level is None


def test_curves__long_ticks_push_the_plot_aside() -> None:
    short = curve_figure({"a": [Point(0, 1.0), Point(1, 2.0)]}, Plot("t", "x", "y"))
    wide = curve_figure({"a": [Point(0, 1000000.0), Point(1, 1000900.0)]}, Plot("t", "x", "y"))
    assert short is not None
    assert wide is not None
    assert LEFT <= short.left < wide.left


def test_reliability__columns_dots_and_gaps_of_the_bins_that_have_something() -> None:
    bins = [[0.0, None, None], [30.0, 0.5, 0.25], [10.0, 0.9, 1.0]]
    figure = reliability_figure(bins, "complete: rgb")
    columns = [box for box in figure.boxes if box.kind == "column"]
    counts = [box for box in figure.boxes if box.kind == "count"]
    gaps = [line for line in figure.lines if line.kind == "gap"]
    assert [round(box.height / columns[1].height, 3) for box in columns] == [0.25, 1.0]
    assert counts[0].height == pytest.approx(3 * counts[1].height, abs=0.1)
    assert len(gaps) == len(figure.series[0].dots) == 2
    assert figure.text == (
        "Accuracy by confidence of complete: rgb: 30 with confidence 0.5000 and accuracy 0.2500; "
        "10 with confidence 0.9000 and accuracy 1.0000."
    )


def test_rows__names_of_wide_letters_get_more_room() -> None:
    wide, narrow = (bar_figure([BarRow(name, 1.0, "1")], "t", "ms").left for name in ("m0+m1+m2", "illitfil"))
    assert wide > narrow + 20


def test_bars__begin_at_zero_and_share_a_scale() -> None:
    figure = bar_figure([BarRow("rgb", 2.0, "2 ms"), BarRow("depth", 1.0, "1 ms"), BarRow("x", None, "-")], "t", "ms")
    widths = [box.width for box in figure.boxes]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.2)
    assert {box.x for box in figure.boxes} == {figure.left}
    assert [dot.label for dot in figure.series[0].dots] == ["2 ms", "1 ms"]
    assert figure.width == WIDTH
