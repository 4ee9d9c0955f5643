"""Labels and values added up sample by sample."""

from __future__ import annotations

import pytest
import torch

from robustmm import VOID
from robustmm.data.tallies import LabelTally, QuantityTally, ValueTally


def test_label_tally__gives_back_what_is_no_class() -> None:
    tally = LabelTally.of(2)
    assert tally.add(torch.tensor([[0, 7], [VOID, -1]])).tolist() == [7, -1]
    assert tally.add(torch.tensor(VOID)).tolist() == [VOID]  # a whole sample cannot be void
    assert (tally.per_class.tolist(), tally.void) == ([1, 0], 1)


def test_label_tally__takes_255_for_a_class_where_there_are_so_many() -> None:
    tally = LabelTally.of(256)
    assert not len(tally.add(torch.tensor([[VOID, VOID]])))
    assert (int(tally.per_class[VOID]), tally.void, tally.all_void) == (2, 0, 0)


def test_value_tally__adds_up_any_type_and_leaves_out_what_is_not_finite() -> None:
    tally = ValueTally()
    tally.add(torch.tensor([[[200, 250]]], dtype=torch.uint8))
    tally.add(torch.tensor([[[torch.nan, -0.5]]]))
    assert (tally.lowest, tally.highest, tally.measured) == (-0.5, 250, 3)
    assert tally.mean == pytest.approx(449.5 / 3)
    assert tally.invalid_share is None


def test_value_tally__of_nothing_measured_has_no_range() -> None:
    tally = ValueTally(not_measured=0.0)
    tally.add(torch.zeros(1, 2, 2))
    assert (tally.lowest, tally.highest, tally.mean, tally.invalid_share) == (None, None, None, 1.0)
    assert ValueTally(0.0).invalid_share is None


def test_value_tally__sizes_are_spatial_and_those_of_vectors_are_left_out() -> None:
    tally = ValueTally()
    for shape in ((3,), (3, 4, 5), (3, 4, 5)):
        tally.add(torch.zeros(shape))
    assert tally.sizes == {(4, 5): 2}


def test_quantity_tally__is_that_of_the_whole() -> None:
    values = torch.tensor([[3.0, -1e6], [5.0, -1e6 + 2], [1.0, -1e6 + 4]])
    tally = QuantityTally(2)
    for target in values:
        tally.add(target)
    first, second = tally.result()
    assert (tally.samples, first["lowest"], first["highest"], first["mean"]) == (3, 1, 5, 3)
    assert second["mean"] == -1e6 + 2
    # By hand: deviations -2, 0 and 2 from the mean in both.
    assert first["deviation"] == pytest.approx((8 / 3) ** 0.5)
    assert second["deviation"] == pytest.approx((8 / 3) ** 0.5)


def test_quantity_tally__of_nothing_has_no_value() -> None:
    assert QuantityTally(1).result() == [dict.fromkeys(("mean", "deviation", "lowest", "highest"))]
