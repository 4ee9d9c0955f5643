"""Pyramid pooling by hand: one channel, weights that pass everything on."""

import pytest
import torch
from robustmm_plugins.trunks._context import PyramidPooling


def passing(bins, reference=None):
    """A module whose result is the sum of the map and of its grids, brought back to its size."""
    module = PyramidPooling(len(bins), 1, bins, reference).eval()  # one channel for each grid
    with torch.no_grad():
        for branch in module.branches:
            branch[0].weight.zero_()[0, 0] = 1.0
        module.join[0].weight.zero_()[0, 0] = 1.0
        module.join[0].weight[0, len(bins) :] = 1.0
    return module


def first(x, bins):
    return torch.cat([x, torch.zeros(1, len(bins) - 1, *x.shape[2:])], dim=1)


@torch.no_grad()
def test_pyramid_pooling__adds_the_mean_and_the_quarters():
    x = torch.tensor([[[[1.0, 3.0, 0.0, 0.0], [1.0, 3.0, 0.0, 4.0]]]])
    # grid 1: mean 1.5; grid 2: columns of two rows: [[2, 0], [2, 2]]
    expected = x + 1.5 + torch.tensor([[[[2.0, 2.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0]]]])
    got = passing((1, 2))(first(x, (1, 2)))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)  # BatchNorm's eps


@pytest.mark.parametrize(
    ("size", "times"),
    [((2, 3), (1, 1)), ((4, 6), (2, 2)), ((3, 3), (2, 1)), ((2, 4), (1, 1)), ((1, 9), (1, 3)), ((10, 3), (5, 1))],
)
def test_pyramid_pooling__grids_grow_by_the_rounded_ratio_and_never_vanish(size, times):
    assert PyramidPooling(2, 1, (1,), (2, 3))._times(size) == times


@torch.no_grad()
def test_pyramid_pooling__grid_of_a_map_of_twice_the_reference_is_twice_as_fine():
    x = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]]).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(passing((1,), (2, 2))(x), 2 * x, rtol=1e-4, atol=1e-4)  # every quarter is its own mean
    torch.testing.assert_close(passing((1,))(x), x + 4, rtol=1e-4, atol=1e-4)


def test_pyramid_pooling__works_on_maps_smaller_than_its_grids():
    assert PyramidPooling(10, 3, (1, 5)).eval()(torch.randn(1, 10, 2, 1)).shape == (1, 3, 2, 1)
