"""Fusion formulas on numbers worked by hand: x = [1, 2], y = [3, -1], projections the identity, biases 0."""

import pytest
import torch
from robustmm_plugins.fusion._levels import ChannelLinear
from robustmm_plugins.fusion.attention import Attention, attention_weights
from robustmm_plugins.fusion.concat import Concat
from robustmm_plugins.fusion.film import FiLM
from robustmm_plugins.fusion.gated import Gated
from robustmm_plugins.fusion.sum import Sum
from robustmm_plugins.heads.linear import Linear

CHANNELS = {"x": (2,), "y": (2,)}
FEATURES = {"x": torch.tensor([[1.0, 2.0]]), "y": torch.tensor([[3.0, -1.0]])}
BOTH = torch.tensor([[True, True]])
ONLY_X = torch.tensor([[True, False]])
ONLY_Y = torch.tensor([[False, True]])


@torch.no_grad()
def as_identity(fusion):
    for part in fusion.modules():
        if isinstance(part, ChannelLinear):
            part.weight.copy_(torch.eye(*part.weight.shape))
            part.bias.zero_()
    return fusion


def assert_values(tensor, *values):
    torch.testing.assert_close(tensor, torch.tensor([values], dtype=torch.float32), rtol=0, atol=5e-7)


def test_concat__values_and_split():
    head = Linear((4,), 2)
    with torch.no_grad():
        head.classify.weight.copy_(torch.tensor([[1.0, 0.0, 2.0, 0.0], [0.0, 1.0, 0.0, 2.0]]))  # [I | 2 I]
        head.classify.bias.zero_()
    fusion = Concat(CHANNELS)
    assert_values(head([fusion(0, FEATURES, BOTH)], ()), 7, 0)
    parts = fusion.summands(0, FEATURES, BOTH)
    share = torch.tensor([0.5])
    assert_values(head.linear_part([parts["x"]], share), 1, 2)
    assert_values(head.linear_part([parts["y"]], share), 6, -2)


def test_concat__split_shares_the_bias():
    # W = [[1, 0, 2], [0, 1, -1]], b = [.4, -.2], f_a = [1, 2], f_v = [3]: z = [7.4, -1.2] = [1.2, 1.9] + [6.2, -3.1]
    head = Linear((3,), 2)
    with torch.no_grad():
        head.classify.weight.copy_(torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]]))
        head.classify.bias.copy_(torch.tensor([0.4, -0.2]))
    fusion = Concat({"a": (2,), "v": (1,)})
    features = {"a": torch.tensor([[1.0, 2.0]]), "v": torch.tensor([[3.0]])}
    parts = fusion.summands(0, features, BOTH)
    assert_values(head([fusion(0, features, BOTH)], ()), 7.4, -1.2)
    assert_values(head.linear_part([parts["a"]], torch.tensor([0.5])), 1.2, 1.9)
    assert_values(head.linear_part([parts["v"]], torch.tensor([0.5])), 6.2, -3.1)


def test_sum__drops_an_absent_term_with_its_bias():
    fusion = as_identity(Sum(CHANNELS, 2))
    with torch.no_grad():
        fusion.projections.layers["x_0"].bias.copy_(torch.tensor([10.0, 20.0]))
    assert_values(fusion(0, FEATURES, BOTH), 14, 21)
    assert_values(fusion(0, FEATURES, ONLY_Y), 3, -1)


def test_gated__one_sided_equals_the_published_form():
    fusion = as_identity(Gated(CHANNELS, 2, "x"))
    # sigmoid([1, 2]) * [3, -1]
    assert_values(fusion(0, FEATURES, BOTH), 2.193176, -0.880797)


def test_gated__absent_gate_is_one_half_even_with_a_bias():
    fusion = as_identity(Gated(CHANNELS, 2, "x"))
    with torch.no_grad():
        fusion.gates.layers["x_0"].bias.fill_(5.0)
    assert_values(fusion(0, FEATURES, ONLY_Y), 1.5, -0.5)


def test_gated__symmetric_adds_both_directions():
    fusion = as_identity(Gated(CHANNELS, 2, None))
    # sigmoid(x) * y + sigmoid(y) * x = [2.193176, -.880797] + [.952574 * 1, .268941 * 2]
    assert_values(fusion(0, FEATURES, BOTH), 3.145750, -0.342914)
    assert_values(fusion(0, FEATURES, ONLY_X), 0.5, 1.0)


def test_gated__third_modality_joins_the_mean_of_the_others():
    fusion = as_identity(Gated(CHANNELS | {"w": (2,)}, 2, None))
    features = FEATURES | {"w": torch.tensor([[3.0, 4.0]])}
    x, y, w = features.values()
    expected = torch.sigmoid((y + w) / 2) * x + torch.sigmoid((x + w) / 2) * y + torch.sigmoid((x + y) / 2) * w
    torch.testing.assert_close(fusion(0, features, torch.tensor([[True, True, True]])), expected)
    without_y = torch.sigmoid(w) * x + torch.sigmoid(x) * w
    torch.testing.assert_close(fusion(0, features, torch.tensor([[True, False, True]])), without_y)


@torch.no_grad()
def film_with(gamma, beta):
    fusion = as_identity(FiLM(CHANNELS, 2, "x"))
    generator = fusion.generators.layers["x_0"]
    generator.weight.zero_()
    generator.bias.copy_(torch.tensor([*gamma, *beta]))
    return fusion


def test_film__plain_gamma_and_beta():
    # gamma = [1, 2], beta = [2, 3]: [1 * 3 + 2, 2 * -1 + 3]; 1 + gamma would give [8, 0]
    assert_values(film_with([1.0, 2.0], [2.0, 3.0])(0, FEATURES, BOTH), 5, 1)


def test_film__absent_modulated_modality_leaves_beta():
    assert_values(film_with([1.0, 2.0], [2.0, 3.0])(0, FEATURES, ONLY_X), 2, 3)


def test_film__absent_condition_takes_the_learned_default():
    fusion = film_with([1.0, 2.0], [2.0, 3.0])
    assert_values(fusion(0, FEATURES, ONLY_Y), 3, -1)  # (1, 0) at the start
    with torch.no_grad():
        fusion.defaults[0].copy_(torch.tensor([2.0, 3.0, 0.5, 0.25]))
    assert_values(fusion(0, FEATURES, ONLY_Y), 6.5, -2.75)


def attention_over_unit_keys(query):
    fusion = as_identity(Attention(CHANNELS, 2, 1))
    with torch.no_grad():
        fusion.queries[0].copy_(torch.tensor([query]))
        fusion.nulls[0].copy_(torch.tensor([7.0, 8.0]))
    return fusion, {"x": torch.tensor([[1.0, 0.0]]), "y": torch.tensor([[0.0, 1.0]])}


def test_attention__weights_are_the_softmax_of_the_scaled_product():
    # features are unit vectors, so the fused feature is the weights themselves; q / sqrt(2) = [1, 0]
    fusion, features = attention_over_unit_keys([2**0.5, 0.0])
    assert_values(fusion(0, features, BOTH), 0.731059, 0.268941)
    # q = [1, 0]: 1 / (1 + exp(-1 / sqrt(2)))
    fusion, features = attention_over_unit_keys([1.0, 0.0])
    assert_values(fusion(0, features, BOTH), 0.669762, 0.330238)


def test_attention__absent_modality_has_no_weight_and_nothing_gives_the_null_vector():
    fusion, features = attention_over_unit_keys([1.0, 0.0])
    assert_values(fusion(0, features, ONLY_Y), 0, 1)
    assert_values(fusion(0, features, torch.tensor([[False, False]])), 7, 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_attention__weights_have_finite_values_and_gradients_with_nothing_present(dtype):
    scores = torch.tensor([[300.0, -300.0], [1.0, 2.0]], dtype=dtype, requires_grad=True)
    weights = attention_weights(scores, torch.tensor([[False, False], [True, False]]))
    weights.sum().backward()
    assert weights.dtype == dtype
    assert weights[1].tolist() == [1.0, 0.0]
    assert weights.isfinite().all()
    assert scores.grad.isfinite().all()
