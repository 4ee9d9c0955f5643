from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from robustmm.report.palette import (
    BACKGROUND,
    FIRST_COLOURS,
    INVALID,
    VOID_STRIPES,
    class_colours,
    distinct_colours,
    oklab,
    value_colours,
)


def closest(colours) -> float:
    """Distance of the two most alike, in OKLab; 0.02 is about what can just be told apart."""
    lab = oklab(np.array(colours, dtype=np.uint8))
    return min(float(np.linalg.norm(a - b)) for a, b in combinations(lab, 2))


def test_class_colours__data_set_says_them() -> None:
    assert class_colours(["a", "b"], [(1, 2, 3), (4, 5, 6)]).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_class_colours__given_for_other_classes_are_not_used() -> None:
    assert class_colours(["a", "b"], [(1, 2, 3)]).tolist() == [list(colour) for colour in FIRST_COLOURS[:2]]


def test_class_colours__background_alone_is_dark() -> None:
    assert class_colours(["Background", "hole"]).tolist() == [list(BACKGROUND), list(FIRST_COLOURS[0])]
    assert class_colours(["wall", "background"]).tolist() == [list(colour) for colour in FIRST_COLOURS[:2]]


@pytest.mark.parametrize(("count", "least"), [(7, 0.12), (20, 0.09), (41, 0.06), (150, 0.03)])
def test_distinct_colours__stay_apart(count: int, least: float) -> None:
    colours = distinct_colours(count)
    assert len(colours) == count
    assert closest([*colours, BACKGROUND]) > least


@pytest.mark.parametrize("count", [13, 40])
def test_distinct_colours__are_no_tone_of_what_is_not_there(count: int) -> None:
    colours = oklab(np.array(distinct_colours(count), dtype=np.uint8))
    for tone in (INVALID, *VOID_STRIPES):
        assert np.linalg.norm(colours - oklab(np.array(tone)), axis=1).min() > 0.05


def test_distinct_colours__more_than_there_are_repeat() -> None:
    colours = distinct_colours(5000)
    assert len(colours) == 5000
    assert colours[:7] == list(FIRST_COLOURS)


def test_distinct_colours__a_longer_list_begins_with_the_shorter() -> None:
    assert distinct_colours(30)[:12] == distinct_colours(12)


def test_oklab__of_primary_colours() -> None:
    # published by the author of OKLab: white is (1, 0, 0); red is (0.628, 0.225, 0.126)
    assert oklab(np.array([255, 255, 255])) == pytest.approx([1, 0, 0], abs=1e-3)
    assert oklab(np.array([255, 0, 0])) == pytest.approx([0.628, 0.225, 0.126], abs=1e-3)


def test_value_colours__lightness_rises_evenly() -> None:
    lightness = oklab(value_colours(np.linspace(0, 1, 64)))[:, 0]
    steps = np.diff(lightness)
    assert steps.min() > 0
    assert steps.max() < 4 * steps.mean()


def test_value_colours__ends_hold_what_lies_beyond() -> None:
    assert value_colours(np.array([-1.0, 0.0, 1.0, 7.0])).tolist() == [
        [68, 1, 84],
        [68, 1, 84],
        [253, 231, 37],
        [253, 231, 37],
    ]
