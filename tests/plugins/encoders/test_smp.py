import sys
import warnings

import pytest
import torch
from robustmm_plugins.encoders import smp as plugin
from robustmm_plugins.encoders.smp import SMPOptions, Unused, build_smp, leave_out
from safetensors.torch import save_file
from segmentation_models_pytorch import encoders
from torch import nn
from torchvision import models

from robustmm import CheckpointError, Modality, RobustmmError, ShapeError

#: Families of the library, at depths that leave nothing, stages or a head of the network out.
FAST = [("resnet18", 5), ("mobilenet_v2", 4), ("efficientnet-b0", 5), ("mit_b0", 4), ("tu-convnext_atto", 4)]
SLOW = [
    *[(name, 3) for name in ("resnet18", "mobilenet_v2", "efficientnet-b0", "mit_b0", "vgg11_bn", "se_resnet50")],
    *[
        (name, depth)
        for name in ("densenet121", "dpn68", "xception", "inceptionv4", "mobileone_s0")
        for depth in (5, 4)
    ],
    *[(name, 4) for name in ("inceptionresnetv2", "timm-efficientnet-b0", "timm-skresnet18", "timm-regnetx_002")],
]


def modality(channels=2, height=65, width=70):
    return Modality("depth", "image", (channels, height, width))


def encoder(name="mobilenet_v2", channels=2, depth=3, weights="none"):
    return build_smp(modality(channels), name, depth, weights)


@pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning")
@pytest.mark.parametrize(("name", "depth"), [*FAST, *(pytest.param(*one, marks=pytest.mark.slow) for one in SLOW)])
def test_smp__levels_are_the_librarys_and_every_parameter_is_used(name, depth):
    torch.manual_seed(0)
    built = encoder(name, depth=depth).eval()
    torch.manual_seed(0)
    reference = encoders.get_encoder(name, in_channels=2, depth=depth, weights=None).eval()
    x = torch.randn(1, 2, 65, 70)
    levels = built(x)
    with torch.no_grad():
        expected = [feature for feature in reference(x)[1:] if feature.shape[1]]
    torch.testing.assert_close(levels, expected, rtol=0, atol=0)
    assert [level.shape[1] for level in levels] == list(built.channels)
    for level, reduction in zip(levels, built.reductions, strict=True):
        assert all(w // reduction <= p <= -(-w // reduction) for w, p in zip((65, 70), level.shape[2:], strict=True))
    torch.autograd.backward([level.sum() for level in levels])
    assert all(parameter.grad is not None for parameter in built.parameters())


@pytest.mark.parametrize(
    ("name", "depth", "reductions"), [("resnet18", 4, (2, 4, 8, 16)), ("mit_b0", 5, (4, 8, 16, 32))]
)
def test_smp__levels_begin_at_a_half_or_a_quarter(name, depth, reductions):
    assert encoder(name, depth=depth).reductions == reductions


def test_smp__layers_of_a_greater_depth_are_left_out():
    kept = sum(parameter.numel() for parameter in encoder("resnet18", channels=3).parameters())
    whole = models.resnet18(weights=None)
    wanted = [whole.conv1, whole.bn1, whole.layer1, whole.layer2]
    assert kept == sum(parameter.numel() for part in wanted for parameter in part.parameters())


def test_leave_out__replaces_the_largest_modules_and_passes_through():
    network = nn.ModuleDict({"a": nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "b": nn.Sequential(nn.Linear(2, 2))})
    network["c"] = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    leave_out(network, {"b.0.weight", "b.0.bias", "c.1.weight", "c.1.bias"})
    assert isinstance(network["b"], Unused)
    assert [type(part) for part in network["c"]] == [nn.Linear, Unused]
    assert [type(part) for part in network["a"]] == [nn.Linear, nn.ReLU]
    assert network["b"]("x", 3, drop_rate=0.5) == "x"


def test_smp__reads_torchvision_files_and_sums_the_first_convolution_for_one_channel(tmp_path):
    path = str(tmp_path / "rgb.safetensors")
    source = models.resnet18(weights=None).eval()
    save_file(source.state_dict(), path)
    rgb, grey = (encoder("resnet18", channels, weights=path).eval() for channels in (3, 1))
    x = torch.randn(1, 1, 33, 40)
    with torch.no_grad():
        torch.testing.assert_close(grey(x)[-1], rgb(x.expand(-1, 3, -1, -1))[-1])
        stem = source.relu(source.bn1(source.conv1(x.expand(-1, 3, -1, -1))))
        torch.testing.assert_close(rgb(x.expand(-1, 3, -1, -1))[0], stem)


def test_smp__reads_files_of_its_own_without_the_layers_that_were_left_out(tmp_path):
    path = str(tmp_path / "own.safetensors")
    saved = encoder().eval()
    save_file(saved.stages[0].state_dict(), path)
    x = torch.randn(1, 2, 33, 40)
    with torch.no_grad():
        torch.testing.assert_close(encoder(weights=path).eval()(x), saved(x), rtol=0, atol=0)


def test_smp__file_of_another_model_is_refused(tmp_path):
    path = str(tmp_path / "other.safetensors")
    save_file({"spam": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"do not fit: lacks features.0.0.weight; .* more"):
        encoder(weights=path)
    with pytest.raises(CheckpointError, match=r"Pickled weights \(.pt, .pth\) can run code and are not read"):
        encoder(weights="net.pth")


def test_smp__nothing_is_fetched_unless_asked_for(monkeypatch):
    def unreachable(*args, **settings):
        raise OSError("no route to host.")

    monkeypatch.setattr(encoders, "hf_hub_download", unreachable)
    encoder()
    with pytest.raises(RobustmmError) as caught:
        encoder(weights="imagenet")
    assert str(caught.value) == (
        "encoder 'smp': could not make 'mobilenet_v2' of depth 3 with weights 'imagenet': no route to host. "
        "Set weights to 'none' or to the path of a .safetensors file, or take another model"
    )


def test_smp__weights_that_the_model_lacks_are_refused_before_fetching():
    with pytest.raises(
        RobustmmError, match=r"'resnet18' has no weights 'imagnet' - did you mean 'imagenet'\? \(none, "
    ):
        encoder("resnet18", weights="imagnet")


@pytest.mark.parametrize(("name", "message"), [("resnet19", r"unknown model 'resnet19' - did you mean 'resnet18'\?")])
def test_smp__unknown_model_suggests_the_closest(name, message):
    with pytest.raises(RobustmmError, match=message):
        encoder(name)


def test_smp__unknown_model_of_timm_is_a_clear_error():
    with pytest.raises(RobustmmError, match=r"could not make 'tu-nothing' of depth 3 .*: Unknown model \(nothing\)"):
        encoder("tu-nothing")


def test_smp__model_that_takes_no_such_size_says_so():
    with pytest.raises(ShapeError, match=r"'tu-hrnet_w18_small' does not take pictures of 65x70, as modality 'depth'"):
        encoder("tu-hrnet_w18_small")


def test_smp__refuses_a_vector():
    with pytest.raises(ShapeError, match=r"'smp' takes samples of shape \(D, H, W\), modality 'v' \(vector\)"):
        build_smp(Modality("v", "vector", (5,)), "resnet18", 5, "none")


@pytest.mark.parametrize("depth", [2, 6])
def test_smp__depth_is_3_to_5(depth):
    with pytest.raises(ValueError, match="than or equal to"):
        SMPOptions(model="resnet18", depth=depth)


def test_smp__missing_library_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(RobustmmError, match="is not installed: pip install segmentation-models-pytorch"):
        encoder()


def test_smp__build_may_run_without_gradient_and_warns_of_nothing():
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plugin.build_smp(modality(), "mobilenet_v2", 3, "none").channels == (16, 24, 32)
