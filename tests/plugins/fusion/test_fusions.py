"""What every fusion promises, over any number of modalities, vectors and maps."""

import pytest
import torch
from robustmm_plugins.fusion.attention import Attention
from robustmm_plugins.fusion.concat import Concat
from robustmm_plugins.fusion.film import FiLM
from robustmm_plugins.fusion.gated import Gated
from robustmm_plugins.fusion.sum import Sum

from robustmm import ShapeError
from robustmm.masks import combination_table

DIM = 4
NAMES = tuple("abcd")
FUSIONS = {
    "concat": Concat,
    "sum": lambda channels: Sum(channels, DIM),
    "gated": lambda channels: Gated(channels, DIM, None),
    "film": lambda channels: FiLM(channels, DIM, None),
    "attention": lambda channels: Attention(channels, DIM, 2),
}
#: Those that leave absent modalities out by themselves; concatenation trusts the missing policy.
MASKING = ["sum", "gated", "film", "attention"]


def channels(count):
    """Two levels; every modality has its own width."""
    return {name: (3 + index, 5 + index) for index, name in enumerate(NAMES[:count])}


def features(widths, level, grid, rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(rows, sizes[level], *grid, generator=generator) for name, sizes in widths.items()}


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("grid", [(), (2, 3)], ids=["vectors", "maps"])
@pytest.mark.parametrize("name", FUSIONS)
def test_fusion__gives_the_promised_channels_at_each_level(name, grid, count):
    fusion = FUSIONS[name](channels(count))
    presence = combination_table(NAMES[:count])
    assert len(fusion.channels) == 2
    for level in (0, 1):
        fused = fusion(level, features(channels(count), level, grid, len(presence)), presence)
        assert fused.shape == (len(presence), fusion.channels[level], *grid)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("name", MASKING)
def test_fusion__absent_modality_changes_nothing_and_gets_no_gradient(name, count):
    fusion = FUSIONS[name](channels(count))
    presence = torch.cat([combination_table(NAMES[:count]), torch.zeros(1, count, dtype=torch.bool)])
    given = features(channels(count), 0, (), len(presence))
    other = {
        key: torch.where(presence[:, [column]], feature, torch.tensor(1e9)).requires_grad_()
        for column, (key, feature) in enumerate(given.items())
    }
    fused = fusion(0, other, presence)
    torch.testing.assert_close(fused, fusion(0, given, presence), rtol=0, atol=0)
    assert fused.isfinite().all()
    fused.square().sum().backward()
    for column, feature in enumerate(other.values()):
        assert not feature.grad[~presence[:, column]].any()


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("name", MASKING)
def test_fusion__every_parameter_learns(name, count):
    torch.manual_seed(0)
    fusion = FUSIONS[name]({key: sizes[:1] for key, sizes in channels(count).items()})
    presence = torch.cat([combination_table(NAMES[:count]), torch.zeros(1, count, dtype=torch.bool)])
    fused = fusion(0, features(channels(count), 0, (), len(presence)), presence)
    (fused * torch.randn(fused.shape)).sum().backward()
    idle = {key.split(".")[0] for key, value in fusion.named_parameters() if value.grad is None or not value.grad.any()}
    # attention over one modality has weight 1, whatever is asked
    assert idle == ({"keys", "queries"} if (name, count) == ("attention", 1) else set())


@pytest.mark.parametrize("name", FUSIONS)
def test_fusion__maps_of_equal_positions_are_vectors_at_each_position(name):
    fusion = FUSIONS[name](channels(3))
    presence = combination_table(NAMES[:3])
    vectors = features(channels(3), 1, (), len(presence))
    maps = {key: value[:, :, None, None].expand(-1, -1, 2, 3) for key, value in vectors.items()}
    expected = fusion(1, vectors, presence)[:, :, None, None].expand(-1, -1, 2, 3)
    torch.testing.assert_close(fusion(1, maps, presence), expected)


@pytest.mark.parametrize("name", ["sum", "gated", "attention"])
def test_fusion__order_of_the_modalities_does_not_matter(name):
    widths = channels(3)
    one = FUSIONS[name](widths)
    turned = dict(reversed(widths.items()))
    two = FUSIONS[name](turned)
    two.load_state_dict(one.state_dict())
    presence = combination_table(NAMES[:3])
    given = features(widths, 0, (), len(presence))
    back = two(0, dict(reversed(given.items())), presence.flip(1))
    torch.testing.assert_close(back, one(0, given, presence))


@pytest.mark.parametrize("name", ["concat", "sum"])
@pytest.mark.parametrize("grid", [(), (2, 3)], ids=["vectors", "maps"])
def test_fusion__summands_add_up_exactly(name, grid):
    fusion = FUSIONS[name](channels(3))
    presence = combination_table(NAMES[:3])
    given = features(channels(3), 0, grid, len(presence))
    parts = fusion.summands(0, given, presence)
    assert list(parts) == list(given)
    torch.testing.assert_close(sum(parts.values()), fusion(0, given, presence))


@pytest.mark.parametrize("name", ["gated", "film", "attention"])
def test_fusion__that_mixes_modalities_has_no_summands(name):
    fusion = FUSIONS[name](channels(2))
    presence = combination_table(NAMES[:2])
    assert fusion.summands(0, features(channels(2), 0, (), 3), presence) is None


@pytest.mark.parametrize("name", FUSIONS)
def test_fusion__refuses_different_numbers_of_levels(name):
    with pytest.raises(ShapeError, match=rf"fusion '{name}': every modality must have the same number of levels"):
        FUSIONS[name]({"a": (3, 4), "b": (3,)})
