"""Moments of predictions and targets, and the correlation from them."""

import numpy as np
import pytest
import torch
from scipy import stats

from robustmm.metrics.regression import correlation, merge_moments, pair_moments


def pairs(rows: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(rows, 2, generator=generator, dtype=torch.float64)
    return 0.4 * target + torch.randn(rows, 2, generator=generator, dtype=torch.float64), target


def merged(*sizes: int, shift: float = 0.0):
    prediction, target = pairs(sum(sizes))
    parts = zip((prediction + shift).split(sizes), (target + shift).split(sizes), strict=True)
    moments = [pair_moments(*part) for part in parts]
    result = moments[0]
    for part in moments[1:]:
        result = merge_moments(result, part)
    return result


def test_correlation__is_that_of_scipy():
    prediction, target = (part.numpy() for part in pairs())
    expected = [stats.pearsonr(prediction[:, column], target[:, column]).statistic for column in range(2)]
    np.testing.assert_allclose(correlation(merged(40)), expected, rtol=1e-12)


@pytest.mark.parametrize("sizes", [(1, 39), (20, 0, 20), (0, 40), (13, 26, 1)])
def test_moments__add_up_from_parts(sizes):
    whole, parts = merged(40), merged(*sizes)
    assert parts.samples == 40
    torch.testing.assert_close(parts.mean, whole.mean)
    torch.testing.assert_close(parts.products, whole.products)


def test_correlation__does_not_lose_digits_far_from_zero():
    torch.testing.assert_close(correlation(merged(10, 30, shift=1e7)), correlation(merged(40)), rtol=1e-7, atol=0)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6])
def test_correlation__has_no_value_where_one_side_is_constant(constant):
    prediction, target = pairs()
    prediction[:, 1] = constant
    found = correlation(
        merge_moments(pair_moments(prediction[:7], target[:7]), pair_moments(prediction[7:], target[7:]))
    )
    assert found.isnan().tolist() == [False, True]


def test_correlation__has_no_value_without_samples_or_with_one():
    nothing = torch.zeros(0, 2, dtype=torch.float64)
    assert correlation(pair_moments(nothing, nothing)).isnan().all()
    assert correlation(merge_moments(pair_moments(nothing, nothing), pair_moments(nothing, nothing))).isnan().all()
    one = torch.ones(1, 2, dtype=torch.float64)
    assert correlation(pair_moments(one, one)).isnan().all()
