import pytest
import torch
from pydantic import ValidationError
from robustmm_plugins.encoders.esanet_resnet import (
    DEPTHS,
    BottleneckOptions,
    ExchangedOptions,
    build_esanet_resnet,
)
from safetensors.torch import save_file
from torchvision import models

from robustmm import CheckpointError, Modality, RobustmmError, ShapeError

RGB = Modality("rgb", "image", (3, 33, 40))
DEPTH = Modality("depth", "image", (1, 33, 40))


def encoder(modality=RGB, name="esanet_resnet18", **options):
    model = BottleneckOptions if name == "esanet_resnet50" else ExchangedOptions
    return build_esanet_resnet(modality, **model(**options).model_dump(), name=name)


def as_published(encoder):
    """The state of an encoder under the names of the authors' checkpoints."""
    places = [("stages.0.0.", "conv1."), ("stages.0.1.", "bn1."), ("stages.1.1.", "layer1.")]
    places += [(f"stages.{index}.", f"layer{index}.") for index in (2, 3, 4)]
    state = {}
    for name, value in encoder.state_dict().items():
        old, new = next((old, new) for old, new in places if name.startswith(old))
        state["encoder." + new + name.removeprefix(old)] = value.clone()
    return state


@pytest.mark.parametrize("name", DEPTHS)
def test_esanet_resnet__levels_halve_and_stages_can_be_run_one_by_one(name):
    built = encoder(DEPTH, name).eval()
    with torch.no_grad():
        levels = built(torch.randn(1, 1, 33, 40))
        again = built.stages[4](levels[3])
    assert torch.equal(again, levels[4])
    assert built.reductions == (2, 4, 8, 16, 32)
    for level, channels, reduction in zip(levels, built.channels, built.reductions, strict=True):
        assert level.shape == (1, channels, -(-33 // reduction), -(-40 // reduction))


@pytest.mark.parametrize(("name", "options"), [("resnet18", {"block": "basic"}), ("resnet50", {})])
def test_esanet_resnet__with_its_own_blocks_is_torchvisions(tmp_path, name, options):
    reference = getattr(models, name)(weights=None).eval()
    save_file(reference.state_dict(), tmp_path / "weights.safetensors")
    built = encoder(name=f"esanet_{name}", weights=str(tmp_path / "weights.safetensors"), **options).eval()
    x = torch.randn(1, 3, 33, 40)
    with torch.no_grad():
        torch.testing.assert_close(reference.fc(built(x)[-1].mean(dim=(2, 3))), reference(x))


def test_esanet_resnet__blocks_are_non_bottleneck_1d_by_default():
    names = encoder().stages[1][1][0].state_dict()
    assert {name.partition(".")[0] for name in names} == {
        "conv3x1_1",
        "conv1x3_1",
        "conv3x1_2",
        "conv1x3_2",
        "bn1",
        "bn2",
    }
    assert encoder().stages[2][0].conv3x1_1.stride == (2, 1)
    assert encoder().stages[2][0].bn1.eps == 1e-3


def test_esanet_resnet__reads_the_authors_names_with_their_prefix_and_sums_the_first_convolution(tmp_path):
    torch.manual_seed(0)
    source = encoder().eval()
    state = {**as_published(source), "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    save_file(state, tmp_path / "r18_nbt1d.safetensors")
    torch.manual_seed(1)
    grey = encoder(DEPTH, weights=str(tmp_path / "r18_nbt1d.safetensors")).eval()
    x = torch.randn(1, 1, 33, 40)
    with torch.no_grad():
        torch.testing.assert_close(grey(x)[-1], source(x.expand(-1, 3, -1, -1))[-1])


def test_esanet_resnet__weights_of_other_blocks_are_refused_with_names(tmp_path):
    path = str(tmp_path / "basic.safetensors")
    save_file(models.resnet18(weights=None).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"do not fit: lacks layer1.0.conv3x1_1.weight; .*; and \d+ more"):
        encoder(weights=path)


def test_esanet_resnet__imagenet_weights_are_refused_for_blocks_that_have_none():
    with pytest.raises(
        ValidationError, match=r"weights 'imagenet' are for block 'basic'.* publish \(TUI-NICR/ESANet\)"
    ):
        ExchangedOptions(weights="imagenet")
    assert ExchangedOptions(weights="imagenet", block="basic").weights == "imagenet"


def test_esanet_resnet__imagenet_weights_are_those_of_the_paper_and_a_missing_network_is_a_clear_error(monkeypatch):
    def unreachable(weights):
        assert weights == "IMAGENET1K_V1"
        raise OSError("no route to host")

    monkeypatch.setattr(models.resnet, "resnet50", unreachable)
    with pytest.raises(RobustmmError, match=r"ImageNet weights of 'resnet50': no route to host. Set weights to 'none'"):
        encoder(name="esanet_resnet50", weights="imagenet")


def test_esanet_resnet__imagenet_weights_are_summed_over_channels_for_depth(monkeypatch):
    reference = models.resnet18(weights=None)
    monkeypatch.setattr(models.resnet, "resnet18", lambda weights: reference)
    expected = reference.conv1.weight.sum(dim=1, keepdim=True)
    built = encoder(DEPTH, weights="imagenet", block="basic")
    assert torch.equal(built.stages[0][0].weight, expected)


def test_esanet_resnet__refuses_a_vector():
    with pytest.raises(ShapeError, match=r"'esanet_resnet18' takes samples of shape \(D, H, W\), modality 'v'"):
        encoder(Modality("v", "vector", (5,)))
