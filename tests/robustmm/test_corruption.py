import pytest
import torch

from robustmm import Component, ConfigError, Corruption, DataError, Modality, Options, Scaling, ShapeError, Spread
from robustmm.corruption import misfit

DEPTH = Modality("depth", "image", (1, 2, 3), Scaling("none", invalid=0.0))
SPREAD = Spread(1.0, 9.0, (4.0,), (2.0,))
GENERATOR = torch.Generator()


class Ones(Corruption):
    def corrupt(self, value, severity, generator, other):
        return torch.full_like(value, float(severity))


class Grey(Ones):
    @classmethod
    def reason_against(cls, modality):
        return None if modality.shape[0] == 1 else "it needs 1 channel"


def component(build, suits=()):
    return Component("one", build, Options, "One.", "own", suits=frozenset(suits))


def test_spread__is_that_of_valid_values_per_channel():
    values = torch.tensor([[[0.0, 2.0], [5.0, 5.0]], [[4.0, 0.0], [0.0, 7.0]]])  # (2, 2, 2), 0 is invalid
    spread = Spread.of(values, 0.0)
    assert (spread.low, spread.high) == (2.0, 7.0)
    assert spread.mean == pytest.approx((3.0, 17 / 3))
    assert spread.std == pytest.approx((1.0, (8 / 9) ** 0.5))
    assert Spread.of(values).low == 0.0


def test_spread__of_vectors_is_per_feature():
    spread = Spread.of(torch.tensor([[1.0, 10.0], [3.0, 10.0]]))
    assert spread == Spread(1.0, 10.0, (2.0, 10.0), (1.0, 0.0))


def test_spread__needs_a_valid_value():
    with pytest.raises(DataError, match=r"no value is valid: all 4 are 0\.0, which says 'not measured'"):
        Spread.of(torch.zeros(2, 2), 0.0)


@pytest.mark.parametrize("severity", [0, 6, -1, 2.5])
def test_corruption__refuses_other_severities(severity):
    with pytest.raises(ConfigError) as caught:
        Ones(DEPTH, SPREAD)(torch.ones(1, 2, 3), severity, GENERATOR)
    assert str(caught.value) == (
        f"corruption Ones of modality 'depth': severity must be one of 1, 2, 3, 4, 5, not {severity}"
    )


def test_corruption__keeps_what_was_not_measured():
    value = torch.tensor([0.0, 7.0, 0.0, 7.0, 7.0, 7.0]).view(1, 2, 3)
    assert Ones(DEPTH, SPREAD)(value, 3, GENERATOR).flatten().tolist() == [0, 3, 0, 3, 3, 3]


def test_corruption__refuses_other_shapes():
    with pytest.raises(ShapeError, match=r"modality 'depth': expected shape \(1, 2, 3\), got \(1, 3, 2\)"):
        Ones(DEPTH, SPREAD)(torch.ones(1, 3, 2), 3, GENERATOR)


def test_corruption__checks_the_other_only_where_it_is_needed():
    assert Ones(DEPTH, SPREAD)(torch.ones(1, 2, 3), 3, GENERATOR, torch.ones(7)).shape == (1, 2, 3)
    needy = Ones(DEPTH, SPREAD)
    needy.needs_other = True
    with pytest.raises(ShapeError, match=r"got \(7,\)"):
        needy(torch.ones(1, 2, 3), 3, GENERATOR, torch.ones(7))
    with pytest.raises(DataError, match="it needs the value of another sample, as 'other'"):
        needy(torch.ones(1, 2, 3), 3, GENERATOR)


def test_corruption__refuses_a_spread_of_other_channels():
    with pytest.raises(ShapeError, match="its spread needs 1 means and deviations, one per feature or channel, got 2"):
        Ones(DEPTH, Spread(0.0, 1.0, (0.0, 0.0), (1.0, 1.0)))


def test_corruption__is_not_built_where_it_does_not_fit():
    with pytest.raises(ConfigError, match="corruption Grey of modality 'rgb': it needs 1 channel"):
        Grey(Modality("rgb", "image", (3, 2, 2)), Spread(0.0, 1.0, (0.0,) * 3, (1.0,) * 3))


def test_misfit__names_the_kind_or_the_reason():
    rgb, text = Modality("rgb", "image", (3, 2, 2)), Modality("text", "vector", (5,))
    assert misfit(component(Grey), rgb) == "it needs 1 channel"
    assert misfit(component(Grey), DEPTH) is None
    assert misfit(component(Ones, {"image", "sequence"}), text) == "it is for image or sequence, not vector"
    assert misfit(component(lambda modality, spread: Ones(modality, spread)), text) is None
