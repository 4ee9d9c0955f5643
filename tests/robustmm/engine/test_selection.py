"""Which epoch is kept, and when to stop."""

import json
import math

import pytest

from robustmm import ConfigError
from robustmm.engine.selection import Selection


def run(selection: Selection, scores) -> list[bool]:
    return [selection.update({selection.metric: score}, epoch) for epoch, score in enumerate(scores)]


def test_selection__more_is_better():
    own = Selection("mean/accuracy", "max")
    assert run(own, [0.5, 0.4, 0.7, 0.7]) == [True, False, True, False]
    assert (own.best, own.best_epoch) == (0.7, 2)


def test_selection__less_is_better():
    own = Selection("mean/ece", "min")
    assert run(own, [0.5, 0.6, 0.2, 0.2]) == [True, False, True, False]
    assert (own.best, own.best_epoch) == (0.2, 2)


@pytest.mark.parametrize(("mode", "scores"), [("max", [0.50, 0.54, 0.56]), ("min", [0.56, 0.54, 0.50])])
def test_selection__progress_below_min_delta_is_none(mode, scores):
    assert run(Selection("m/a", mode, min_delta=0.05), scores) == [True, False, True]


def test_selection__equal_score_is_no_progress():
    assert run(Selection("m/a", "max"), [0.0, 0.0]) == [True, False]


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_selection__score_without_a_value_is_never_the_best(mode, nothing):
    own = Selection("m/a", mode, patience=2)
    assert run(own, [nothing, 0.5, nothing]) == [False, True, False]
    assert (own.best, own.best_epoch, own.waited) == (0.5, 1, 1)


def test_selection__patience_counts_validations_since_the_best():
    own = Selection("m/a", "max", patience=2)
    exhausted = []
    for epoch, score in enumerate([0.5, 0.4, 0.6, 0.5, None]):
        own.update({"m/a": score}, epoch)
        exhausted.append(own.exhausted)
    assert exhausted == [False, False, False, False, True]


def test_selection__without_patience_never_stops():
    own = Selection("m/a", "max")
    run(own, [0.5] * 50)
    assert not own.exhausted


def test_selection__unknown_score_names_the_closest_and_all():
    with pytest.raises(ConfigError) as caught:
        Selection("mean/acuracy", "max").update({"worst/f1": 0.1, "mean/accuracy": 0.2}, 0)
    assert str(caught.value) == (
        "train.select.metric: no score 'mean/acuracy' - did you mean 'mean/accuracy'? "
        "(there are mean/accuracy, worst/f1)"
    )


def test_selection__state_goes_through_json():
    own = Selection("m/a", "max", patience=3)
    run(own, [0.5, 0.4])
    again = Selection("m/a", "max", patience=3)
    again.load_state(json.loads(json.dumps(own.state())))
    assert again == own
    assert [own.update({"m/a": 0.45}, 2), own.update({"m/a": 0.45}, 3)] == [
        again.update({"m/a": 0.45}, 2),
        again.update({"m/a": 0.45}, 3),
    ]
    assert again.exhausted
