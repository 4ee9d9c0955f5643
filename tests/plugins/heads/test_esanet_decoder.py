import math

import pytest
import torch
from robustmm_plugins.heads.esanet_decoder import ESANetDecoder, ESANetDecoderOptions, LearnedUpsampling
from torch.nn.functional import interpolate

from robustmm import ShapeError

CHANNELS = (4, 6, 8, 10)


def decoder(channels=CHANNELS, **options):
    return ESANetDecoder(channels, 3, **ESANetDecoderOptions(**options).model_dump())


def levels(*sizes, channels=CHANNELS):
    return [torch.randn(2, width, *size) for width, size in zip(channels, sizes, strict=True)]


EVEN = ((16, 24), (8, 12), (4, 6), (2, 3))  # of 64 x 96


def test_esanet_decoder__logits_then_side_outputs_from_fine_to_coarse():
    scales = decoder().scales(levels(*EVEN), (64, 96))
    assert [tuple(one.shape) for one in scales] == [(2, 3, 64, 96), (2, 3, 8, 12), (2, 3, 4, 6), (2, 3, 2, 3)]


def test_esanet_decoder__forward_is_the_first_scale():
    head, fused = decoder().eval(), levels(*EVEN)
    with torch.no_grad():
        assert torch.equal(head(fused, (64, 96)), head.scales(fused, (64, 96))[0])


def test_esanet_decoder__every_parameter_trains_through_all_scales():
    head = decoder(blocks=1)
    torch.autograd.backward(sum(one.square().sum() for one in head.scales(levels(*EVEN), (64, 96))))
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_esanet_decoder__fits_levels_of_odd_sizes_and_the_target():
    # 33 x 47 halved upwards: each level is a position short of twice the one below
    fused = levels((9, 12), (5, 6), (3, 3), (2, 2))
    scales = decoder(blocks=0).scales(fused, (33, 47))
    assert [tuple(one.shape[2:]) for one in scales] == [(33, 47), (5, 6), (3, 3), (2, 2)]


def test_esanet_decoder__resizes_bilinearly_only_where_the_target_has_another_size():
    head, fused = decoder(blocks=1).eval(), levels(*EVEN)
    with torch.no_grad():
        own = head(fused, (64, 96))
        other = head(fused, (100, 90))
    torch.testing.assert_close(other, interpolate(own, (100, 90), mode="bilinear", align_corners=False))


def test_esanet_decoder__has_one_module_per_level_that_is_added():
    head = decoder((4, 8), blocks=0).eval()
    fused = levels((6, 6), (3, 3), channels=(4, 8))
    assert [tuple(one.shape[2:]) for one in head.scales(fused, (24, 24))] == [(24, 24), (3, 3)]


def test_esanet_decoder__refuses_a_single_level():
    with pytest.raises(ShapeError, match="needs at least two, got 1; use it behind a trunk that gives several levels"):
        decoder((8,))


def test_esanet_decoder__he_init_spares_outputs_and_upsampling():
    torch.manual_seed(0)
    plain = decoder((32, 64), blocks=1)
    torch.manual_seed(0)
    he = decoder((32, 64), blocks=1, he_init=True)
    assert torch.equal(plain.stages[0].upsample.smooth.weight, he.stages[0].upsample.smooth.weight)
    assert torch.equal(plain.stages[0].side.weight, he.stages[0].side.weight)
    assert float(he.stages[0].inner[0][0].weight.detach().std()) == pytest.approx(math.sqrt(2 / (9 * 32)), rel=0.05)
    assert float(plain.stages[0].inner[0][0].weight.detach().std()) == pytest.approx(
        1 / math.sqrt(3 * 9 * 64), rel=0.05
    )


@torch.no_grad()
def test_learned_upsampling__starts_as_bilinear_interpolation_away_from_the_border():
    x = torch.randn(1, 2, 5, 6)
    ours = LearnedUpsampling(2)(x, (10, 12))
    bilinear = interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(ours[..., 1:-1, 1:-1], bilinear[..., 1:-1, 1:-1])
    assert not torch.allclose(ours[..., 0, :], bilinear[..., 0, :])  # zeros beyond the border
