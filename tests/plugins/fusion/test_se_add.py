import math

import pytest
import torch
from robustmm_plugins.fusion.se_add import SEAdd, SEAddOptions, SqueezeExcitation

from robustmm import ShapeError


def fusion(channels, **options):
    return SEAdd(channels, **SEAddOptions(**options).model_dump())


def test_squeeze_excitation__by_hand():
    # mean [1, 2] -> hidden relu(1 + 2) = 3 -> gate [sigmoid(3), sigmoid(ln 3) = 3/4]
    layer = SqueezeExcitation(2, 16)
    with torch.no_grad():
        layer.squeeze.weight.copy_(torch.tensor([[1.0, 1.0]]))
        layer.squeeze.bias.zero_()
        layer.excite.weight.copy_(torch.tensor([[1.0], [0.0]]))
        layer.excite.bias.copy_(torch.tensor([0.0, math.log(3)]))
        result = layer(torch.tensor([[[[0.0, 2.0]], [[2.0, 2.0]]]]))
    gate = 1 / (1 + math.exp(-3))
    torch.testing.assert_close(result, torch.tensor([[[[0.0, 2 * gate]], [[1.5, 1.5]]]]))


def test_squeeze_excitation__hidden_layer_is_a_sixteenth_and_at_least_one():
    assert SqueezeExcitation(2048, 16).squeeze.out_features == 128
    assert SqueezeExcitation(5, 16).squeeze.out_features == 1


def test_se_add__absent_modality_adds_exactly_nothing_whatever_its_gate():
    add = fusion({"rgb": (4,), "depth": (4,)})
    features = {"rgb": torch.randn(2, 4, 3, 3), "depth": torch.full((2, 4, 3, 3), torch.nan)}
    presence = torch.tensor([[True, False], [False, False]])
    with torch.no_grad():
        fused = add(0, features, presence)
        alone = add.gates["rgb_0"](features["rgb"])
    assert torch.equal(fused[0], alone[0])
    assert torch.equal(fused[1], torch.zeros(4, 3, 3))


def test_se_add__masking_after_the_gate_equals_masking_before_it():
    add = fusion({"rgb": (4,), "depth": (4,)})
    features = {name: torch.randn(2, 4, 3, 3) for name in ("rgb", "depth")}
    presence = torch.tensor([[True, False], [False, True]])
    shown = {name: f * presence[:, m].view(-1, 1, 1, 1) for m, (name, f) in enumerate(features.items())}
    with torch.no_grad():
        before = add(0, shown, torch.ones_like(presence))
        torch.testing.assert_close(add(0, features, presence), before)


def test_se_add__each_level_and_modality_has_its_own_gate():
    add = fusion({"a": (4, 32), "b": (4, 32), "c": (4, 32)})
    assert add.channels == (4, 32)
    assert sorted(add.gates) == ["a_0", "a_1", "b_0", "b_1", "c_0", "c_1"]


def test_se_add__refuses_unequal_channels():
    with pytest.raises(ShapeError, match=r"fusion 'se_add', level 1: .*rgb has 8.*depth has 6"):
        fusion({"rgb": (4, 8), "depth": (4, 6)})


def test_se_add__he_init_spares_the_layer_before_the_sigmoid():
    torch.manual_seed(0)
    plain = SqueezeExcitation(512, 16)
    torch.manual_seed(0)
    he = SqueezeExcitation(512, 16, he_init=True)
    assert torch.equal(plain.excite.weight, he.excite.weight)
    assert float(he.squeeze.weight.detach().std()) == pytest.approx(math.sqrt(2 / 32), rel=0.05)  # fan out: 32 hidden
