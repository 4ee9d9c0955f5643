"""Properties of the draws, over any batch, any number of modalities and anything observed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from robustmm import RobustmmError, generator_for
from robustmm.masks import (
    all_combinations,
    combination_name,
    combination_table,
    draw_bernoulli,
    draw_cardinality,
    draw_for_batch,
    draw_from,
    draw_stratified,
    draw_uniform,
    keep_one,
    parse_combination,
    presence_of,
    shown_combinations,
    where_present,
)

NAMES = tuple("abcdef")
DRAWS = 6000


def alike(modalities):
    table = combination_table(NAMES[:modalities])
    return table, torch.ones(len(table), dtype=torch.float64)


DRAW = {
    "uniform": draw_uniform,
    "cardinality": draw_cardinality,
    "bernoulli": lambda observed, g: draw_bernoulli(observed, torch.full((observed.shape[1],), 0.3), g),
    "from": lambda observed, g: draw_from(*alike(observed.shape[1]), observed, g),
    "for_batch": lambda observed, g: draw_for_batch(*alike(observed.shape[1]), observed, g),
    "stratified": lambda observed, g: draw_stratified(*alike(observed.shape[1]), observed, g),
    "keep_one": lambda observed, g: keep_one(torch.zeros_like(observed), observed, g),
}
steady = settings(derandomize=True, deadline=None, max_examples=30)


@st.composite
def masks(draw):
    rows, modalities = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    bits = draw(st.lists(st.booleans(), min_size=rows * modalities, max_size=rows * modalities))
    return torch.tensor(bits).view(rows, modalities)


def frequencies(presence):
    """Share of each non-empty combination, in the order of the binary number of its row."""
    code = (presence.long() << torch.arange(presence.shape[1])).sum(dim=1)
    return torch.bincount(code, minlength=1 << presence.shape[1])


@pytest.mark.parametrize("name", DRAW)
@steady
@given(observed=masks(), seed=st.integers(0, 2**32))
def test_draws__show_some_of_what_is_there_and_nothing_else(name, observed, seed):
    presence = DRAW[name](observed, generator_for(seed))
    assert presence.shape == observed.shape
    assert presence.dtype == torch.bool
    assert not (presence & ~observed).any()
    assert presence.any(dim=1).equal(observed.any(dim=1))  # one stays where there is one, and only there


@pytest.mark.parametrize("name", DRAW)
@steady
@given(observed=masks(), seed=st.integers(0, 2**32))
def test_draws__depend_on_the_generator_alone(name, observed, seed):
    torch.manual_seed(1)
    first = DRAW[name](observed, generator_for(seed))
    torch.manual_seed(2)
    assert DRAW[name](observed, generator_for(seed)).equal(first)


@pytest.mark.parametrize("modalities", [2, 3, 4])
@pytest.mark.parametrize("name", ["uniform", "from", "stratified"])
def test_draws__show_every_combination_alike(name, modalities):
    counts = frequencies(DRAW[name](torch.ones(DRAWS, modalities, dtype=torch.bool), generator_for(name, modalities)))
    assert counts[0] == 0
    assert chisquare(counts[1:].numpy()).pvalue > 0.01


@pytest.mark.parametrize("modalities", [2, 3])
def test_draw_for_batch__is_one_combination_for_all_and_every_one_alike(modalities):
    observed = torch.ones(2, modalities, dtype=torch.bool)
    generator = generator_for("batch", modalities)
    drawn = torch.stack([DRAW["for_batch"](observed, generator) for _ in range(700)])
    assert drawn[:, 0].equal(drawn[:, 1])
    assert chisquare(frequencies(drawn[:, 0])[1:].numpy()).pvalue > 0.01


def test_draw_uniform__is_uniform_over_the_subsets_of_what_a_sample_has():
    observed = torch.tensor([True, False, True]).expand(DRAWS, -1)
    counts = frequencies(draw_uniform(observed, generator_for("partial")))
    assert counts.nonzero().flatten().tolist() == [1, 4, 5]
    assert chisquare(counts[[1, 4, 5]].numpy()).pvalue > 0.01


def test_draw_cardinality__has_the_published_probability_of_presence():
    presence = draw_cardinality(torch.ones(DRAWS, 4, dtype=torch.bool), generator_for("cardinality"))
    sizes = presence.sum(dim=1).bincount(minlength=5)[1:]
    assert chisquare(sizes.numpy()).pvalue > 0.01
    # closed form (M + 1) / (2 M) = 0.625 for M = 4
    torch.testing.assert_close(presence.double().mean(dim=0), torch.full((4,), 0.625).double(), atol=0.02, rtol=0)


def test_draw_bernoulli__with_rate_half_has_the_published_frequencies():
    observed = torch.ones(DRAWS, 4, dtype=torch.bool)
    counts = frequencies(draw_bernoulli(observed, torch.full((4,), 0.5), generator_for("bernoulli")))
    # closed form: the empty draw (1/16) is shared by the four single ones: 5/64 each, all others 4/64
    expected = torch.tensor([5 if bin(code).count("1") == 1 else 4 for code in range(1, 16)]) * DRAWS / 64
    assert chisquare(counts[1:].numpy(), expected.numpy()).pvalue > 0.01


def test_draw_bernoulli__keep_one_and_zero_are_exact():
    presence = draw_bernoulli(torch.ones(500, 2, dtype=torch.bool), torch.tensor([1.0, 0.0]), generator_for(0))
    assert presence.equal(torch.tensor([True, False]).expand(500, -1))


@steady
@given(
    size=st.integers(1, 40),
    weights=st.lists(st.integers(0, 9), min_size=7, max_size=7).filter(any),
    seed=st.integers(0, 2**32),
)
def test_draw_stratified__every_row_stands_its_exact_share_of_times(size, weights, seed):
    table = combination_table(NAMES[:3])
    weights = torch.tensor(weights).double()
    presence = draw_stratified(table, weights, torch.ones(size, 3, dtype=torch.bool), generator_for(seed))
    share = weights * size / weights.sum()
    counts = frequencies(presence)[(table.long() << torch.arange(3)).sum(dim=1)]
    assert counts.sum() == size
    assert ((counts - share).abs() < 1).all()


@pytest.mark.parametrize("modalities", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("times", [1, 2, 7])
def test_draw_stratified__whole_multiples_are_exact(modalities, times):
    table, weights = alike(modalities)
    observed = torch.ones(len(table) * times, modalities, dtype=torch.bool)
    counts = frequencies(draw_stratified(table, weights / 3, observed, generator_for(times)))
    assert counts[1:].eq(times).all()


def test_draw_stratified__places_left_over_go_by_the_fractions():
    table = combination_table(NAMES[:2])
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    generator = generator_for("left over")
    observed = torch.ones(3, 2, dtype=torch.bool)
    total = sum(frequencies(draw_stratified(table, weights, observed, generator)) for _ in range(800))
    # expected share of 3 places: 1.5, 0.9, 0.6
    torch.testing.assert_close(total[1:].double() / 800, torch.tensor([1.5, 0.9, 0.6]).double(), atol=0.06, rtol=0)


def test_draw_stratified__order_of_the_rows_is_random():
    table, weights = alike(2)
    observed = torch.ones(30, 2, dtype=torch.bool)
    first, second = (draw_stratified(table, weights, observed, generator_for(seed)) for seed in (0, 1))
    assert not first.equal(second)


def test_keep_one__leaves_samples_that_have_something_alone_and_rescues_uniformly():
    observed = torch.tensor([True, True, False, True]).expand(DRAWS, -1)
    presence = torch.zeros_like(observed)
    presence[0, 3] = True
    kept = keep_one(presence, observed, generator_for("rescue"))
    assert kept[0].tolist() == [False, False, False, True]
    counts = frequencies(kept[1:])
    assert counts.nonzero().flatten().tolist() == [1, 2, 8]
    assert chisquare(counts[[1, 2, 8]].numpy()).pvalue > 0.01


@pytest.mark.parametrize("modalities", range(1, 7))
def test_all_combinations__are_all_different_small_ones_first(modalities):
    names = NAMES[:modalities]
    combinations = all_combinations(names)
    assert len(set(combinations)) == len(combinations) == 2**modalities - 1
    assert sorted(combinations, key=len) == combinations
    assert combinations[-1] == names
    assert [presence_of(one, names).tolist() for one in combinations] == combination_table(names).tolist()
    assert [parse_combination(combination_name(one), names) for one in combinations] == combinations


def test_parse_combination__restores_column_order():
    assert parse_combination("depth + rgb", ("rgb", "depth", "ir")) == ("rgb", "depth")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "rgb+dept",
            r"combination 'rgb\+dept': no modality 'dept' - did you mean 'depth'\? \(modalities: rgb, depth\)",
        ),
        ("rgb+rgb", r"combination 'rgb\+rgb': a modality stands twice"),
        ("", r"combination '': no modality ''"),
    ],
)
def test_parse_combination__says_what_is_wrong(text, message):
    with pytest.raises(RobustmmError, match=message):
        parse_combination(text, ("rgb", "depth"))


def test_shown_combinations__names_each_once():
    presence = torch.tensor([[1, 1], [0, 1], [1, 1]]).bool()
    assert sorted(shown_combinations(presence, ("rgb", "depth"))) == ["depth", "rgb+depth"]


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 4), (3, 2, 4, 5)])
def test_where_present__absent_rows_give_neither_value_nor_gradient(shape):
    feature = torch.full(shape, float("nan"))
    feature[1] = 2.0
    feature.requires_grad_()
    shown = where_present(feature, torch.tensor([False, True, False]), torch.tensor(5.0))
    shown.sum().backward()
    assert shown[1].eq(2).all()
    assert shown[[0, 2]].eq(5).all()
    assert feature.grad[1].eq(1).all()
    assert feature.grad[[0, 2]].eq(0).all()
