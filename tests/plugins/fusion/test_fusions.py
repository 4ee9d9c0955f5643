"""What every fusion promises, over any number of modalities, vectors and maps."""

import pytest
import torch
from robustmm_plugins.fusion._levels import ChannelLinear
from robustmm_plugins.fusion.add import Add
from robustmm_plugins.fusion.attention import Attention
from robustmm_plugins.fusion.concat import Concat
from robustmm_plugins.fusion.concat_conv import ConcatConv
from robustmm_plugins.fusion.film import FiLM
from robustmm_plugins.fusion.gated import Gated
from robustmm_plugins.fusion.max import Max
from robustmm_plugins.fusion.sum import Sum

from robustmm import ShapeError
from robustmm.masks import combination_table

DIM = 4
NAMES = tuple("abcd")
FUSIONS = {
    "concat": Concat,
    "concat_conv": lambda channels: ConcatConv(channels, DIM),
    "add": Add,
    "max": Max,
    "sum": lambda channels: Sum(channels, DIM),
    "gated": lambda channels: Gated(channels, DIM, None),
    "film": lambda channels: FiLM(channels, DIM, None),
    "attention": lambda channels: Attention(channels, DIM, 2),
}
#: Those that leave absent modalities out by themselves; concatenation trusts the missing policy.
MASKING = ["add", "max", "sum", "gated", "film", "attention"]
#: Those without weights, for features of one width.
EQUAL = ("add", "max")

#: Three samples of two modalities.
GIVEN = {
    "a": torch.tensor([[-1.0, 2.0], [-1.0, 2.0], [-1.0, 2.0]]),
    "b": torch.tensor([[-2.0, 3.0], [9.0, 9.0], [9.0, 9.0]]),
}


def channels(count, fusion="concat"):
    """Two levels; every modality has its own width where the fusion can do with it."""
    own = fusion not in EQUAL
    return {name: (3 + own * index, 5 + own * index) for index, name in enumerate(NAMES[:count])}


def features(widths, level, grid, rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(rows, sizes[level], *grid, generator=generator) for name, sizes in widths.items()}


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("grid", [(), (2, 3)], ids=["vectors", "maps"])
@pytest.mark.parametrize("name", FUSIONS)
def test_fusion__gives_the_promised_channels_at_each_level(name, grid, count):
    fusion = FUSIONS[name](channels(count, name))
    presence = combination_table(NAMES[:count])
    if (name, count, grid) == ("concat_conv", 1, ()):
        fusion.eval()  # BatchNorm cannot train on one vector
    assert len(fusion.channels) == 2
    for level in (0, 1):
        fused = fusion(level, features(channels(count, name), level, grid, len(presence)), presence)
        assert fused.shape == (len(presence), fusion.channels[level], *grid)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("name", MASKING)
def test_fusion__absent_modality_changes_nothing_and_gets_no_gradient(name, count):
    fusion = FUSIONS[name](channels(count, name))
    presence = torch.cat([combination_table(NAMES[:count]), torch.zeros(1, count, dtype=torch.bool)])
    given = features(channels(count, name), 0, (), len(presence))
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
@pytest.mark.parametrize("name", [name for name in MASKING if name not in EQUAL])
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
    fusion = FUSIONS[name](channels(3, name)).eval()
    presence = combination_table(NAMES[:3])
    vectors = features(channels(3, name), 1, (), len(presence))
    maps = {key: value[:, :, None, None].expand(-1, -1, 2, 3) for key, value in vectors.items()}
    expected = fusion(1, vectors, presence)[:, :, None, None].expand(-1, -1, 2, 3)
    torch.testing.assert_close(fusion(1, maps, presence), expected)


@pytest.mark.parametrize("name", ["add", "max", "sum", "gated", "attention"])
def test_fusion__order_of_the_modalities_does_not_matter(name):
    widths = channels(3, name)
    one = FUSIONS[name](widths)
    turned = dict(reversed(widths.items()))
    two = FUSIONS[name](turned)
    two.load_state_dict(one.state_dict())
    presence = combination_table(NAMES[:3])
    given = features(widths, 0, (), len(presence))
    back = two(0, dict(reversed(given.items())), presence.flip(1))
    torch.testing.assert_close(back, one(0, given, presence))


@pytest.mark.parametrize("name", ["concat", "add", "sum"])
@pytest.mark.parametrize("grid", [(), (2, 3)], ids=["vectors", "maps"])
def test_fusion__summands_add_up_exactly(name, grid):
    fusion = FUSIONS[name](channels(3, name))
    presence = combination_table(NAMES[:3])
    given = features(channels(3, name), 0, grid, len(presence))
    parts = fusion.summands(0, given, presence)
    assert list(parts) == list(given)
    torch.testing.assert_close(sum(parts.values()), fusion(0, given, presence))


@pytest.mark.parametrize("name", ["concat_conv", "max", "gated", "film", "attention"])
def test_fusion__that_mixes_modalities_has_no_summands(name):
    fusion = FUSIONS[name](channels(2, name))
    presence = combination_table(NAMES[:2])
    assert fusion.summands(0, features(channels(2, name), 0, (), 3), presence) is None


@pytest.mark.parametrize("name", FUSIONS)
def test_fusion__refuses_different_numbers_of_levels(name):
    with pytest.raises(ShapeError, match=rf"fusion '{name}': every modality must have the same number of levels"):
        FUSIONS[name]({"a": (3, 4), "b": (3,)})


@pytest.mark.parametrize("name", ["sum", "gated", "film", "attention", "concat_conv"])
def test_fusion__without_dim_keeps_the_width_of_the_first_modality_at_each_level(name):
    widths = {"rgb": (4, 8), "depth": (6, 2)}
    build = {"sum": Sum, "concat_conv": ConcatConv}.get(name) or {
        "gated": lambda channels, dim: Gated(channels, dim, None),
        "film": lambda channels, dim: FiLM(channels, dim, None),
        "attention": lambda channels, dim: Attention(channels, dim, 2),
    }[name]
    fusion = build(widths, None)
    assert fusion.channels == (4, 8)
    presence = combination_table(("rgb", "depth"))
    for level in (0, 1):
        fused = fusion(level, features(widths, level, (2, 3), len(presence)), presence)
        assert fused.shape == (3, fusion.channels[level], 2, 3)


@pytest.mark.parametrize("name", EQUAL)
def test_fusion__without_weights_refuses_features_of_different_widths(name):
    with pytest.raises(
        ShapeError,
        match=rf"fusion '{name}', level 1: rgb has 8 channels, depth has 6 channels; .* agree on channels\[1\]",
    ):
        FUSIONS[name]({"rgb": (4, 8), "depth": (4, 6)})


def test_add__is_the_sum_of_what_is_present():
    fused = Add({"a": (2,), "b": (2,)})(0, GIVEN, torch.tensor([[True, True], [True, False], [False, False]]))
    torch.testing.assert_close(fused, torch.tensor([[-3.0, 5.0], [-1.0, 2.0], [0.0, 0.0]]))  # hand-worked


def test_max__absent_modality_never_wins():
    given = {name: feature.clone().requires_grad_() for name, feature in GIVEN.items()}
    fused = Max({"a": (2,), "b": (2,)})(0, given, torch.tensor([[True, True], [True, False], [False, False]]))
    torch.testing.assert_close(fused, torch.tensor([[-1.0, 3.0], [-1.0, 2.0], [0.0, 0.0]]))  # hand-worked
    fused.sum().backward()
    assert given["a"].grad.tolist() == [[1, 0], [1, 1], [0, 0]]
    assert given["b"].grad.tolist() == [[0, 1], [0, 0], [0, 0]]


def test_concat_conv__is_convolution_batch_norm_and_relu_of_the_joined_features():
    torch.manual_seed(0)
    fusion = ConcatConv({"a": (2,), "b": (2,)}, 3)
    maps = {name: feature[:, :, None, None] * torch.tensor([[1.0, 2.0]]) for name, feature in GIVEN.items()}
    joined = torch.cat(list(maps.values()), dim=1)
    linear = torch.einsum("oi,bihw->bohw", fusion.layers[0][0].weight.flatten(1), joined)
    expected = torch.nn.functional.batch_norm(linear, None, None, training=True).relu()
    torch.testing.assert_close(fusion(0, maps, torch.ones(3, 2, dtype=torch.bool)), expected)


def test_concat_conv__one_vector_in_training_is_a_clear_error():
    fusion = ConcatConv({"a": (2,), "b": (2,)}, 3)
    one = {name: feature[:1] for name, feature in GIVEN.items()}
    with pytest.raises(ShapeError, match="'concat_conv' cannot train on a batch of one sample with one position"):
        fusion(0, one, torch.ones(1, 2, dtype=torch.bool))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_channel_linear__is_a_1x1_convolution_in_either_memory_format(layout):
    torch.manual_seed(0)
    layer, x = ChannelLinear(3, 5), torch.randn(2, 3, 4, 6).contiguous(memory_format=layout)
    fused = layer(x)
    torch.testing.assert_close(fused, torch.nn.functional.conv2d(x, layer.weight[:, :, None, None], layer.bias))
    assert fused.is_contiguous(memory_format=layout)


def test_attention__scores_are_those_of_the_keys():
    torch.manual_seed(0)
    fusion = Attention({"a": (3,), "b": (5,)}, 4, 2)
    given = {"a": torch.randn(2, 3), "b": torch.randn(2, 5)}
    keys = torch.stack([fusion.keys(0, name, feature) for name, feature in given.items()], dim=1)  # (B, M, dim)
    scores = (keys.view(2, 2, 2, 2) * fusion.queries[0]).sum(dim=3) / 2**0.5  # (B, M, heads)
    values = torch.stack([fusion.values(0, name, feature) for name, feature in given.items()], dim=1)
    expected = (scores.softmax(dim=1).unsqueeze(3) * values.view(2, 2, 2, 2)).sum(dim=1).flatten(1)
    torch.testing.assert_close(fusion(0, given, torch.ones(2, 2, dtype=torch.bool)), expected)
