import pytest
import torch
from pydantic import ValidationError
from robustmm_plugins.samplers.bernoulli import Bernoulli, BernoulliOptions
from robustmm_plugins.samplers.cardinality import Cardinality
from robustmm_plugins.samplers.complete import build_complete
from robustmm_plugins.samplers.fixed import Fixed
from robustmm_plugins.samplers.stratified import Stratified, StratifiedOptions
from robustmm_plugins.samplers.uniform import Uniform
from robustmm_plugins.samplers.uniform_batch import UniformBatch
from robustmm_plugins.samplers.weighted import Weighted, WeightedOptions

from robustmm import RobustmmError, generator_for

NAMES = ("rgb", "depth", "ir")
SAMPLERS = {
    "complete": build_complete,
    "uniform": Uniform,
    "uniform_batch": UniformBatch,
    "bernoulli": lambda names: Bernoulli(names, 0.5),
    "fixed": lambda names: Fixed(names, names[-1]),
    "weighted": lambda names: Weighted(names, {names[0]: 1.0, "+".join(names[1:]) or names[0]: 2.0}),
    "cardinality": Cardinality,
    "stratified": lambda names: Stratified(names, None),
}


def draw(sampler, rows=1000, observed=None, seed=0):
    observed = torch.ones(rows, len(NAMES), dtype=torch.bool) if observed is None else observed
    return sampler(observed, generator_for(seed))


def shares(presence):
    """Combination as a tuple of 0 and 1 -> share of the rows."""
    rows, counts = presence.unique(dim=0, return_counts=True)
    return {tuple(row.int().tolist()): count / len(presence) for row, count in zip(rows, counts.tolist(), strict=True)}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", SAMPLERS)
def test_sampler__respects_what_is_observed_and_the_generator(name, count):
    observed = torch.rand(60, count, generator=generator_for(name)).gt(0.4)
    sampler = SAMPLERS[name](NAMES[:count])
    presence = sampler(observed, generator_for(5))
    assert not (presence & ~observed).any()
    assert presence.any(dim=1).equal(observed.any(dim=1))
    assert sampler(observed, generator_for(5)).equal(presence)


@pytest.mark.parametrize("name", ["uniform", "uniform_batch", "bernoulli", "cardinality", "stratified", "complete"])
def test_sampler__single_modality_always_stays(name):
    observed = torch.tensor([[True], [False], [True]])
    assert SAMPLERS[name](("rgb",))(observed, generator_for(0)).equal(observed)


def test_complete__shows_everything():
    observed = torch.tensor([[True, False, True]])
    assert draw(build_complete(NAMES), observed=observed).equal(observed)


def test_uniform_batch__shows_the_whole_batch_one_combination():
    assert len(shares(draw(UniformBatch(NAMES)))) == 1


def test_bernoulli__rate_zero_drops_nothing():
    assert draw(Bernoulli(NAMES, 0.0)).all()


def test_bernoulli__unnamed_modalities_stay():
    presence = draw(Bernoulli(NAMES, {"depth": 0.25}), rows=4000)
    assert presence[:, [0, 2]].all()
    assert presence[:, 1].float().mean().item() == pytest.approx(0.75, abs=0.03)


def test_bernoulli__documented_share_goes_missing():
    presence = draw(Bernoulli(NAMES, 0.5), rows=20000)
    # closed form r - r**M / M with r = .5, M = 3
    assert 1 - presence.float().mean().item() == pytest.approx(0.5 - 0.125 / 3, abs=0.01)


def test_fixed__shows_what_a_sample_has_of_it_or_keeps_one():
    observed = torch.tensor([[True, True, True], [False, True, True], [False, False, True], [False, False, False]])
    presence = draw(Fixed(NAMES, "depth+rgb"), observed=observed)
    assert presence.int().tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_weighted__follows_the_weights():
    found = shares(draw(Weighted(NAMES, {"rgb": 1, "depth+ir": 3, "ir": 0}), rows=4000))
    assert set(found) == {(1, 0, 0), (0, 1, 1)}
    assert found[0, 1, 1] == pytest.approx(0.75, abs=0.03)


def test_stratified__shares_are_exact():
    assert shares(draw(Stratified(NAMES, {"rgb": 1, "rgb+depth+ir": 3}), rows=8)) == {(1, 0, 0): 0.25, (1, 1, 1): 0.75}
    assert set(shares(draw(Stratified(NAMES, None), rows=14)).values()) == {1 / 7}


@pytest.mark.parametrize(
    "build",
    [
        lambda: Bernoulli(NAMES, {"dept": 0.5}),
        lambda: Fixed(NAMES, "rgb+dept"),
        lambda: Weighted(NAMES, {"dept": 1.0}),
        lambda: Stratified(NAMES, {"dept": 1.0}),
    ],
)
def test_sampler__unknown_modality_suggests_the_closest(build):
    with pytest.raises(RobustmmError, match=r"no modality 'dept' - did you mean 'depth'\?"):
        build()


def test_weighted__one_combination_twice_is_refused():
    with pytest.raises(RobustmmError, match=r"combination 'rgb\+ir' has two weights"):
        Weighted(NAMES, {"rgb+ir": 1.0, "ir+rgb": 2.0})


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        (BernoulliOptions, {"missing_rate": 1.5}, "less than or equal to 1"),
        (BernoulliOptions, {"missing_rate": {"rgb": -0.1}}, "greater than or equal to 0"),
        (WeightedOptions, {}, "Field required"),
        (WeightedOptions, {"weights": {"rgb": 0.0}}, "at least one weight must be above 0"),
        (WeightedOptions, {"weights": {"rgb": float("nan")}}, "finite number"),
        (StratifiedOptions, {"weights": {}}, "at least 1 item|at least one weight"),
    ],
)
def test_sampler__refuses_impossible_options(options, given, message):
    with pytest.raises(ValidationError, match=message):
        options(**given)
