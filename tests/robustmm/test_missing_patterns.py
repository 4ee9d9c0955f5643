"""Masks of the missing-rate protocol: wanted rates are met, something is always left, equal seeds draw equally."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustmm.missing_patterns import PATTERNS, Ground, block, label, label_positions, one_modality, shared
from robustmm.seeding import generator_for

RATES = st.floats(0, 0.99)
MANY = 20_000


def ground(samples: int, modalities: int, block_length: int = 4) -> Ground:
    return Ground(samples, modalities, torch.linspace(0, 1, samples), block_length)


@given(st.sampled_from(sorted(PATTERNS)), st.integers(1, 40), st.integers(1, 5), RATES, st.integers(0, 3))
def test_patterns__leave_something_and_repeat(name, samples, modalities, rate, seed):
    first, second = (PATTERNS[name](ground(samples, modalities), rate, generator_for("m", seed)) for _ in range(2))
    assert first.shape == (samples, modalities)
    assert first.dtype == torch.bool
    assert first.any(dim=1).all()
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_patterns__rate_0_drops_nothing(name):
    assert PATTERNS[name](ground(50, 3), 0.0, generator_for(0)).all()


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_bernoulli__realised_rate_is_the_wanted_one_but_for_samples_that_lost_everything(rate):
    missing = 1 - PATTERNS["bernoulli"](ground(MANY, 4), rate, generator_for(0)).double().mean()
    # Of the lost modalities one is given back where all four were lost: rate - rate**4 / 4.
    assert float(missing) == pytest.approx(rate - rate**4 / 4, abs=0.01)


def test_shared__leaves_everything_or_one_modality():
    left = shared(ground(MANY, 4), 0.3, generator_for(0)).sum(dim=1)
    assert set(left.tolist()) == {1, 4}
    assert float((left == 1).double().mean()) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(("rate", "first", "last"), [(0.25, 0.0, 0.5), (0.75, 0.5, 1.0)])
def test_label__rate_grows_linearly_with_the_position(rate, first, last):
    shown = label(ground(MANY, 8), rate, generator_for(0)).double().mean(dim=1)
    wanted = torch.linspace(first, last, MANY).double()
    wanted = wanted - wanted**8 / 8  # one is given back where all eight were lost
    for part in torch.arange(MANY).split(MANY // 10):
        assert 1 - float(shown[part].mean()) == pytest.approx(float(wanted[part].mean()), abs=0.015)


def test_block__consecutive_samples_share_their_mask():
    mask = block(ground(22, 3, block_length=5), 0.5, generator_for(1))
    for start in range(0, 22, 5):
        assert (mask[start : start + 5] == mask[start]).all()


def test_one_modality__all_others_stay():
    mask = one_modality(1, ground(MANY, 3), 0.4, generator_for(0))
    assert mask[:, [0, 2]].all()
    assert 1 - float(mask[:, 1].double().mean()) == pytest.approx(0.4, abs=0.02)


def test_label_positions__classes_are_spread_evenly_in_a_drawn_order():
    target = torch.tensor([3, 3, 5, 9, 5])
    position = label_positions(target, generator_for(0))
    assert sorted(set(position.tolist())) == [0.0, 0.5, 1.0]
    assert position[0] == position[1]
    assert position[2] == position[4]


def test_label_positions__quantities_stand_by_rank():
    assert label_positions(torch.tensor([2.5, -1.0, 9.0]), generator_for(0)).tolist() == [0.5, 0.0, 1.0]
