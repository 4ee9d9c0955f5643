"""Statistics over seeds, against scipy, hand-worked values and what must always hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from robustmm.report.statistics import (
    MOST_EXACT,
    Interval,
    bootstrap_interval,
    deviation,
    holm,
    mean_of,
    paired_test,
    sign_flip_p,
    t_interval,
)

SCORES = [0.71, 0.74, 0.69, 0.78, 0.75]
OTHERS = [0.70, 0.70, 0.66, 0.71, 0.76]
PLAIN = st.floats(-1, 1, width=32)


def test_bootstrap_interval__is_scipys_percentile_interval() -> None:
    theirs = stats.bootstrap((SCORES,), np.mean, method="percentile", n_resamples=9999, random_state=1)
    own = bootstrap_interval(SCORES)
    assert (own.low, own.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.002)  # other draws


def test_bootstrap_interval__with_two_values_is_between_them() -> None:
    assert bootstrap_interval([0.0, 1.0]) == Interval(0.0, 1.0)  # both values of one kind: a quarter each
    assert bootstrap_interval([0.0, 1.0], confidence=0.4) == Interval(0.5, 0.5)  # the middle half of the draws


def test_bootstrap_interval__is_the_same_every_time() -> None:
    assert bootstrap_interval(SCORES) == bootstrap_interval(SCORES)


@given(st.lists(PLAIN, min_size=2, max_size=8), st.floats(-3, 3, width=32))
@settings(max_examples=30, deadline=None)
def test_bootstrap_interval__lies_within_the_values_and_moves_with_them(values: list[float], shift: float) -> None:
    own, moved = bootstrap_interval(values), bootstrap_interval([value + shift for value in values])
    assert min(values) - 1e-9 <= own.low <= own.high <= max(values) + 1e-9
    assert (moved.low, moved.high) == pytest.approx((own.low + shift, own.high + shift), abs=1e-6)


def test_deviation__has_n_minus_one() -> None:
    assert deviation([1.0, 2.0, 4.0, 5.0]) == pytest.approx((10 / 3) ** 0.5)  # squares 4 + 1 + 1 + 4


def test_paired_test__is_scipys() -> None:
    theirs, own = stats.ttest_rel(SCORES, OTHERS), paired_test(SCORES, OTHERS)
    assert own.p == pytest.approx(theirs.pvalue, rel=1e-12)
    low, high = theirs.confidence_interval(0.95)
    assert (own.interval.low, own.interval.high) == pytest.approx((low, high), rel=1e-12)
    assert own.mean == pytest.approx(0.028)
    assert own.differences == pytest.approx((0.01, 0.04, 0.03, 0.07, -0.01))


def test_paired_test__flips_are_scipys_exact_permutations() -> None:
    differences = [a - b for a, b in zip(SCORES, OTHERS, strict=True)]
    theirs = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert sign_flip_p(differences) == pytest.approx(theirs.pvalue)


def test_sign_flip__counted_by_hand() -> None:
    assert sign_flip_p([1.0, 1.0, 1.0]) == 2 / 8  # +++ and ---
    assert sign_flip_p([3.0, 2.0, -1.0]) == 4 / 8  # sums of 4 or more in size: 6, 4, and their negatives
    assert sign_flip_p([0.0, 0.0, 0.0]) == 1


def test_sign_flip__of_many_pairs_is_drawn_and_close_to_the_t_test() -> None:
    differences = np.random.default_rng(0).normal(0.3, 1, MOST_EXACT + 14)
    own = sign_flip_p(differences.tolist())
    assert own == sign_flip_p(differences.tolist())
    assert own == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.02)


def test_paired_test__without_any_spread() -> None:
    assert paired_test(SCORES, SCORES).p == 1
    assert paired_test([0.5, 0.7, 0.6], [0.4, 0.6, 0.5]).p == 0
    assert paired_test(SCORES, SCORES).interval == Interval(0, 0)


@given(st.lists(st.tuples(PLAIN, PLAIN), min_size=3, max_size=8))
@settings(max_examples=50, deadline=None)
def test_paired_test__turns_round_with_its_groups(pairs: list[tuple[float, float]]) -> None:
    one, other = [a for a, _ in pairs], [b for _, b in pairs]
    forth, back = paired_test(one, other), paired_test(other, one)
    assert forth.mean == pytest.approx(-back.mean, abs=1e-12)
    assert (forth.p, forth.p_sign_flip) == pytest.approx((back.p, back.p_sign_flip))
    assert 0 <= forth.p <= 1
    assert 2 / 2 ** len(pairs) <= forth.p_sign_flip <= 1


@given(st.lists(st.floats(-1, 1).map(lambda value: round(value, 3)), min_size=3, max_size=8))
@settings(max_examples=50, deadline=None)
def test_t_interval__holds_zero_where_the_test_sees_nothing(values: list[float]) -> None:
    test, own = paired_test(values, [0.0] * len(values)), t_interval(values)
    if abs(test.p - 0.05) > 1e-6 and deviation(values) > 0:
        assert (own.low <= 0 <= own.high) == (test.p > 0.05)
    assert own.low <= mean_of(values) <= own.high


def test_holm__worked_by_hand() -> None:
    # sorted 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1; the last is lifted to the one before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm__keeps_order_and_is_between_none_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for own, raw in zip(adjusted, p_values, strict=True):
        assert raw <= own <= min(1.0, raw * len(p_values)) or own == max(adjusted)
        assert raw <= own <= 1
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    assert [adjusted[place] for place in order] == sorted(adjusted)
