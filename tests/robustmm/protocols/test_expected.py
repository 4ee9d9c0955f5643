"""Expected scores: weights by hand, and agreement with drawing masks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmm import ConfigError
from robustmm.protocols.expected import combination_probabilities, expectation


def test_combination_probabilities__two_modalities_by_hand():
    # Shown together .9 * .7, rgb alone .9 * .3, depth alone .1 * .7, and .03 for nothing is taken out.
    found = combination_probabilities({"rgb": 0.1, "depth": 0.3})
    expected = {("rgb",): 0.27 / 0.97, ("depth",): 0.07 / 0.97, ("rgb", "depth"): 0.63 / 0.97}
    assert found == pytest.approx(expected)


@given(st.lists(st.floats(0, 0.99), min_size=1, max_size=5))
def test_combination_probabilities__sum_to_one(drops):
    found = combination_probabilities({f"m{place}": drop for place, drop in enumerate(drops)})
    assert sum(found.values()) == pytest.approx(1)
    assert all(weight >= 0 for weight in found.values())


def test_combination_probabilities__nothing_left_is_refused():
    with pytest.raises(ConfigError, match="every modality is always missing"):
        combination_probabilities({"rgb": 1.0, "depth": 1.0})


def test_expectation__is_none_where_a_possible_combination_has_no_score():
    scores = {("rgb",): 0.5, ("depth",): None}
    assert expectation({("rgb",): 1.0, ("depth",): 0.0}, scores) == 0.5
    assert expectation({("rgb",): 0.9, ("depth",): 0.1}, scores) is None
