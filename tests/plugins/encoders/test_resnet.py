import pytest
import torch
from robustmm_plugins.encoders.resnet import NAMES, ResNetOptions, build_resnet
from safetensors.torch import save_file
from torchvision import models

from robustmm import CheckpointError, Modality, RobustmmError, ShapeError

RGB = Modality("rgb", "image", (3, 33, 40))


def encoder(modality=RGB, name="resnet18", **options):
    return build_resnet(modality, **ResNetOptions(**options).model_dump(), name=name)


@pytest.mark.parametrize(
    ("small_input", "reductions"), [(False, (2, 4, 8, 16, 32)), (True, (1, 1, 2, 4, 8))], ids=["usual", "small"]
)
def test_resnet__levels_have_the_promised_channels_and_reductions(small_input, reductions):
    built = encoder(Modality("depth", "image", (1, 33, 40)), small_input=small_input).eval()
    levels = built(torch.randn(2, 1, 33, 40))
    assert built.reductions == reductions
    for level, channels, reduction in zip(levels, built.channels, reductions, strict=True):
        assert level.shape == (2, channels, -(-33 // reduction), -(-40 // reduction))


@pytest.mark.parametrize("name", NAMES)
def test_resnet__last_level_pooled_and_classified_is_torchvision_output(name):
    torch.manual_seed(0)
    built = encoder(name=name).eval()
    torch.manual_seed(0)
    reference = models.get_model(name, weights=None).eval()
    x = torch.randn(1, 3, 33, 40)
    with torch.no_grad():
        expected = reference(x)
        got = reference.fc(built(x)[-1].mean(dim=(2, 3)))
    torch.testing.assert_close(got, expected)


def test_resnet__reads_safetensors_and_sums_the_first_convolution_for_one_channel(tmp_path):
    source = models.resnet18(weights=None).eval()
    save_file(source.state_dict(), tmp_path / "rgb.safetensors")
    grey = encoder(Modality("depth", "image", (1, 33, 40)), weights=str(tmp_path / "rgb.safetensors")).eval()
    rgb = encoder(weights=str(tmp_path / "rgb.safetensors")).eval()
    x = torch.randn(1, 1, 33, 40)
    with torch.no_grad():
        torch.testing.assert_close(grey(x)[-1], rgb(x.expand(-1, 3, -1, -1))[-1])


def test_resnet__file_that_does_not_fit_is_refused_with_names_and_shapes(tmp_path):
    path = str(tmp_path / "other.safetensors")
    save_file({"conv1.weight": torch.zeros(64, 3, 3, 3), "spam": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"do not fit: lacks bn1.weight; .*; and \d+ more"):
        encoder(weights=path)
    state = models.resnet18(weights=None).state_dict()
    save_file({name: value for name, value in state.items() if not name.startswith("fc.")}, path)
    with pytest.raises(CheckpointError, match=r"conv1.weight is \(64, 3, 7, 7\), the encoder needs \(64, 3, 3, 3\)"):
        encoder(weights=path, small_input=True)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("net.pth", r"Pickled weights \(.pt, .pth\) can run code and are not read"),
        ("missing.safetensors", "no such file"),
        ("damaged.safetensors", "not a readable safetensors file"),
    ],
)
def test_resnet__refuses_other_weights(tmp_path, file, message):
    (tmp_path / "damaged.safetensors").write_bytes(b"not tensors at all")
    with pytest.raises(CheckpointError, match=message):
        encoder(weights=str(tmp_path / file))


def test_resnet__imagenet_without_network_is_a_clear_error(monkeypatch):
    def unreachable(name, weights):
        assert weights == "DEFAULT"
        raise OSError("no route to host")

    monkeypatch.setattr(models, "get_model", unreachable)
    with pytest.raises(RobustmmError, match=r"ImageNet weights of 'resnet18': no route to host. Set weights to 'none'"):
        encoder(weights="imagenet")


def test_resnet__refuses_a_vector():
    with pytest.raises(ShapeError, match=r"'resnet18' takes samples of shape \(D, H, W\), modality 'v' \(vector\)"):
        encoder(Modality("v", "vector", (5,)))
