import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError
from robustmm_plugins.heads._smp import exact_pyramid
from robustmm_plugins.heads.deeplabv3plus import DeepLabV3Plus, DeepLabV3PlusOptions
from robustmm_plugins.heads.fpn import FPN, FPNOptions
from robustmm_plugins.heads.segformer import SegFormer, SegFormerOptions
from robustmm_plugins.heads.unet import UNet, UNetOptions
from robustmm_plugins.heads.upernet import UPerNet, UPerNetOptions
from segmentation_models_pytorch import FPN as WholeFPN
from segmentation_models_pytorch import DeepLabV3Plus as WholeDeepLab
from segmentation_models_pytorch import Segformer, Unet
from segmentation_models_pytorch import UPerNet as WholeUPerNet
from torch.nn.functional import interpolate

from robustmm import ShapeError

SMALL = {
    "unet": (UNet, UNetOptions(decoder_channels=(8, 8, 4))),
    "fpn": (FPN, FPNOptions(pyramid_channels=8, segmentation_channels=32)),
    "deeplabv3plus": (DeepLabV3Plus, DeepLabV3PlusOptions(decoder_channels=8)),
    "upernet": (UPerNet, UPerNetOptions(decoder_channels=8)),
    "segformer": (SegFormer, SegFormerOptions(decoder_channels=8)),
}
LEAST = {"unet": 3, "fpn": 4, "deeplabv3plus": 2, "upernet": 2, "segformer": 1}


def build(name, channels):
    make, options = SMALL[name]
    return make(channels, 3, **dict(options))


def halved(size, count):
    """Sizes of as many levels, each half of the one before, rounded up."""
    sizes = []
    for _ in range(count):
        size = tuple((side + 1) // 2 for side in size)
        sizes.append(size)
    return sizes


def levels_of(size, channels, rows=2):
    grids = halved(size, len(channels))
    return [torch.randn(rows, width, *grid) for width, grid in zip(channels, grids, strict=True)]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("count", [3, 4, 5])
@pytest.mark.parametrize("size", [(64, 32), (27, 45), (5, 9), (1, 1)], ids=str)
def test_decoder__gives_logits_of_the_targets_size_for_any_size(name, count, size):
    channels = (4, 6, 8, 6, 4)[: max(count, LEAST[name])]
    head = build(name, channels)
    for target in (size, (50, 70)):
        assert head(levels_of(size, channels), target).shape == (2, 3, *target)


@pytest.mark.parametrize("name", SMALL)
def test_decoder__starts_as_the_library_starts_it(name):
    head = build(name, (4, 6, 8, 6, 4))
    assert not head.classify.bias.any()
    # closed form: Xavier uniform within sqrt(6 / (inputs + outputs)), positions of the kernel counted
    bound = (6 / (head.classify.in_channels + 3) / head.classify.kernel_size[0] ** 2) ** 0.5
    assert 0.5 * bound < head.classify.weight.abs().max() <= bound
    norms = [part for part in head.modules() if isinstance(part, torch.nn.BatchNorm2d | torch.nn.GroupNorm)]
    assert all((norm.weight == 1).all() and not norm.bias.any() for norm in norms)


@pytest.mark.parametrize(("name", "least"), [(name, least) for name, least in LEAST.items() if name not in ("unet",)])
def test_decoder__takes_no_fewer_levels_than_it_can(name, least):
    build(name, (4,) * least)
    if least > 1:
        with pytest.raises(ShapeError, match=rf"'{name}' needs at least {least} fused levels, got {least - 1}; use"):
            build(name, (4,) * (least - 1))


def test_unet__takes_at_most_one_width_per_level():
    with pytest.raises(ShapeError, match="decoder_channels has 3 widths for 2 fused levels; give 1 to 2"):
        build("unet", (4, 4))


@pytest.mark.parametrize("name", SMALL)
def test_decoder__refuses_global_prediction(name):
    with pytest.raises(ShapeError, match=rf"'{name}' predicts maps; for one prediction per sample use head 'linear'"):
        build(name, (4,) * 5)(levels_of((32, 32), (4,) * 5), ())


@pytest.mark.parametrize("name", ["deeplabv3plus", "upernet"])
def test_decoder__that_pools_cannot_train_on_one_sample(name):
    head = build(name, (4,) * 5)
    one = levels_of((64, 64), (4,) * 5, rows=1)
    with pytest.raises(
        ShapeError, match=rf"'{name}' cannot train on a batch of one sample .* of at least 2, or head 'f"
    ):
        head(one, (64, 64))
    assert head.eval()(one, (64, 64)).isfinite().all()


@pytest.mark.parametrize("name", ["unet", "fpn", "segformer"])
def test_decoder__without_pooling_trains_on_one_sample(name):
    build(name, (4,) * 5)(levels_of((64, 64), (4,) * 5, rows=1), (64, 64)).sum().backward()


def whole_model(name):
    """The library's own model with the options of ``SMALL``, on the encoder resnet18."""
    common = {"encoder_name": "resnet18", "encoder_weights": None, "classes": 3}
    if name == "unet":
        return Unet(**common, encoder_depth=3, decoder_channels=(8, 8, 4))
    if name == "fpn":
        return WholeFPN(**common, decoder_pyramid_channels=8, decoder_segmentation_channels=32, upsampling=1)
    if name == "upernet":
        return WholeUPerNet(**common, decoder_channels=8, upsampling=1)
    return Segformer(**common, encoder_depth=4, decoder_segmentation_channels=8, upsampling=1)


@pytest.mark.parametrize("name", ["unet", "fpn", "upernet"])
def test_decoder__is_the_librarys_where_the_levels_fit(name):
    torch.manual_seed(0)
    model = whole_model(name).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features = model.encoder(x)
        expected = model.segmentation_head[0](model.decoder(features))
        head = build(name, [feature.shape[1] for feature in features[1:]]).eval()
        head.decoder.load_state_dict(model.decoder.state_dict())
        head.classify.load_state_dict(model.segmentation_head[0].state_dict())
        torch.testing.assert_close(head(features[1:], tuple(expected.shape[2:])), expected)


def test_segformer__is_the_librarys_with_an_encoder_that_has_no_level_at_one_half():
    model = Segformer("mit_b0", encoder_weights=None, decoder_segmentation_channels=8, classes=3, upsampling=1).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features = model.encoder(x)
        expected = model.segmentation_head[0](model.decoder(features))
        head = build("segformer", [feature.shape[1] for feature in features[2:]]).eval()
        head.decoder.load_state_dict(model.decoder.state_dict())
        head.classify.load_state_dict(model.segmentation_head[0].state_dict())
        torch.testing.assert_close(head(features[2:], tuple(expected.shape[2:])), expected)


def test_deeplabv3plus__is_the_librarys_but_for_the_corners_of_the_resizing():
    model = WholeDeepLab(
        "resnet18", encoder_weights=None, decoder_channels=8, decoder_atrous_rates=(3, 6, 9), classes=3
    )
    decoder = model.eval().decoder
    decoder.up.align_corners = False  # the library aligns corners in this decoder alone
    features = [torch.randn(2, width, *grid) for width, grid in ((64, (16, 24)), (512, (4, 6)))]
    with torch.no_grad():
        expected = decoder([None, None, *features])
        head = DeepLabV3Plus((64, 64, 128, 256, 512), 3, **dict(DeepLabV3PlusOptions(decoder_channels=8))).eval()
        head.decoder.load_state_dict(decoder.state_dict())
        levels = [torch.empty(0), features[0], torch.empty(0), torch.empty(0), features[1]]
        torch.testing.assert_close(head.decode(levels, (64, 96)), expected)


def test_exact_pyramid__leaves_levels_that_fit_and_resizes_the_others():
    fitting = [torch.randn(1, 2, 8, 12), torch.randn(1, 2, 4, 6), torch.randn(1, 2, 2, 3)]
    assert all(one is other for one, other in zip(exact_pyramid(fitting), fitting, strict=True))
    odd = [torch.randn(1, 2, 27, 5), torch.randn(1, 2, 14, 3), torch.randn(1, 2, 7, 2)]
    made = exact_pyramid(odd)
    assert [tuple(one.shape[2:]) for one in made] == [(28, 8), (14, 4), (7, 2)]
    torch.testing.assert_close(made[0], interpolate(odd[0], (28, 8), mode="bilinear", align_corners=False))
    assert made[2] is odd[2]


@pytest.mark.parametrize(
    ("steps", "size", "expected"),
    [((8, 8, 4), (27, 45), (27, 45)), ((8, 8, 4), (64, 64), (28, 46)), ((8, 8), (27, 45), (14, 23))],
    ids=["input's own size", "label of another size", "one step less"],
)
def test_unet__ends_at_twice_the_finest_level_or_earlier(steps, size, expected):
    head = UNet((4, 4, 4), 3, steps)
    levels = levels_of((27, 45), (4, 4, 4))
    assert tuple(head.decode(levels, size).shape[2:]) == expected


@pytest.mark.parametrize("count", [1, 3, 5, 6])
def test_unet__widths_follow_the_number_of_levels(count):
    head = UNet((4,) * count, 3, None)
    assert len(head.decoder.blocks) == count
    assert head.classify.in_channels == 16


@pytest.mark.parametrize(("levels", "place"), [(2, 3), (4, 1), (9, 0)])
def test_deeplabv3plus__fine_level_is_counted_from_the_coarsest(levels, place):
    options = DeepLabV3PlusOptions(decoder_channels=8, levels=levels)
    assert DeepLabV3Plus((1, 2, 3, 4, 5), 3, **dict(options)).fine == place


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        (UNetOptions, {"decoder_channels": ()}, "at least 1 item"),
        (FPNOptions, {"segmentation_channels": 48}, "multiple of 32"),
        (DeepLabV3PlusOptions, {"atrous_rates": (1, 2)}, "Field required"),
        (UPerNetOptions, {"levels": 1}, "greater than or equal to 2"),
        (SegFormerOptions, {"decoder_channels": 0}, "greater than 0"),
    ],
)
def test_decoder__refuses_impossible_options(options, given, message):
    with pytest.raises(ValidationError, match=message):
        options(**given)


@pytest.mark.slow  # a process of its own imports torch
def test_decoders__offering_them_does_not_import_the_library():
    code = (
        "import sys\n"
        "import robustmm_plugins.encoders.smp\n"
        "from robustmm_plugins.heads import deeplabv3plus, fpn, segformer, unet, upernet\n"
        "sys.exit('segmentation_models_pytorch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
