import sys

import pytest
import torch
from robustmm_plugins.encoders import timm as plugin
from robustmm_plugins.encoders.timm import build_timm
from safetensors.torch import save_file

from robustmm import CheckpointError, Modality, RobustmmError

timm = pytest.importorskip("timm", reason="an optional extra")

NAME = "mobilenetv3_small_050"


def modality(channels=3, size=64):
    return Modality("picture", "image", (channels, size, size))


@pytest.mark.parametrize("name", [NAME, "resnet10t"])
def test_timm__levels_have_the_promised_channels_and_reductions(name):
    encoder = build_timm(modality(2), name, "none", {}).eval()
    with torch.no_grad():
        levels = encoder(torch.randn(1, 2, 64, 64))
    assert encoder.reductions == (2, 4, 8, 16, 32)
    assert [tuple(level.shape[1:]) for level in levels] == [
        (channels, 64 // reduction, 64 // reduction)
        for channels, reduction in zip(encoder.channels, encoder.reductions, strict=True)
    ]


def test_timm__channels_last_models_give_channels_first():
    settings = {"img_size": 32, "window_size": 2, "embed_dim": 24, "patch_size": 2}
    encoder = build_timm(modality(1, 32), "swin_tiny_patch4_window7_224", "none", settings).eval()
    with torch.no_grad():
        levels = encoder(torch.randn(1, 1, 32, 32))
    assert tuple(level.shape[1] for level in levels) == encoder.channels


def test_timm__reads_safetensors_and_sums_the_first_convolution_for_one_channel(tmp_path):
    path = str(tmp_path / "rgb.safetensors")
    save_file(timm.create_model(NAME, pretrained=False).state_dict(), path)
    rgb, grey = (build_timm(modality(channels), NAME, path, {}).eval() for channels in (3, 1))
    x = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(grey(x)[-1], rgb(x.expand(-1, 3, -1, -1))[-1])


def test_timm__file_of_another_model_is_refused(tmp_path):
    path = str(tmp_path / "other.safetensors")
    save_file({"spam": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"do not fit: lacks conv_stem.weight"):
        build_timm(modality(), NAME, path, {})


def test_timm__unknown_model_suggests_the_closest():
    with pytest.raises(RobustmmError, match=r"unknown model 'resnet10x' - did you mean 'resnet10t'\?"):
        build_timm(modality(), "resnet10x", "none", {})


def test_timm__unfetchable_weights_are_a_clear_error(monkeypatch):
    def unreachable(name, **arguments):
        assert arguments["pretrained"] is True
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(
        RobustmmError, match=rf"of '{NAME}' with weights 'imagenet': no route to host. Try weights: none"
    ):
        build_timm(modality(), NAME, "imagenet", {})


def test_timm__not_installed_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(RobustmmError, match=r"pip install 'robustmm\[timm\]'"):
        build_timm(modality(), NAME, "none", {})


@pytest.fixture
def _broken_timm(tmp_path, monkeypatch):
    (tmp_path / "timm.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')", encoding="utf-8"
    )
    monkeypatch.delitem(sys.modules, "timm")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("_broken_timm")
def test_timm__on_a_torchvision_of_another_build_says_so(monkeypatch):
    def explain():
        raise RobustmmError("torchvision and torch are of different builds")

    monkeypatch.setattr(plugin, "import_torchvision", explain)
    with pytest.raises(RobustmmError, match="torchvision and torch are of different builds"):
        build_timm(modality(), NAME, "none", {})


@pytest.mark.usefixtures("_broken_timm")
def test_timm__that_fails_by_itself_is_quoted():
    with pytest.raises(RobustmmError) as caught:
        build_timm(modality(), NAME, "none", {})
    assert str(caught.value) == (
        "encoder 'timm': timm cannot be imported (RuntimeError: operator torchvision::nms does not exist); "
        "install it again"
    )
