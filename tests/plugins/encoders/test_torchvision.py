import sys

import pytest
import torch
from robustmm_plugins.encoders.torchvision import build_torchvision, cut_into_levels
from safetensors.torch import save_file
from torchvision import models

from robustmm import Modality, RobustmmError

SMALL = {
    "resnet18": (2, 4, 8, 16, 32),
    "regnet_y_400mf": (2, 4, 8, 16, 32),
    "convnext_tiny": (4, 8, 16, 32),
    "efficientnet_b0": (2, 4, 8, 16, 32),
    "mobilenet_v2": (2, 4, 8, 16, 32),
    "mobilenet_v3_small": (2, 4, 8, 16, 32),
    "mnasnet0_5": (2, 4, 8, 16, 32),
    "densenet121": (2, 4, 8, 16, 32),
}
# its classifier alone has 120 million weights
SLOW = [pytest.param("vgg11", (1, 2, 4, 8, 16, 32), marks=pytest.mark.slow)]


@pytest.mark.parametrize(("name", "reductions"), [*SMALL.items(), *SLOW])
def test_torchvision__levels_have_the_promised_channels_and_reductions(name, reductions):
    encoder = build_torchvision(Modality("depth", "image", (1, 65, 70)), name, "none").eval()
    assert encoder.reductions == reductions
    with torch.no_grad():
        levels = encoder(torch.randn(1, 1, 65, 70))
    for level, channels, reduction in zip(levels, encoder.channels, reductions, strict=True):
        assert level.shape[1] == channels
        assert abs(level.shape[2] - 65 / reduction) < 1.01
        assert abs(level.shape[3] - 70 / reduction) < 1.01


def test_cut_into_levels__a_stage_ends_where_the_next_module_shrinks_the_grid():
    wide, narrow = torch.nn.Conv2d(2, 5, 1), torch.nn.Conv2d(5, 3, 1)
    encoder = cut_into_levels([wide, torch.nn.ReLU(), torch.nn.MaxPool2d(2), narrow, torch.nn.MaxPool2d(4)], 2)
    assert [len(stage) for stage in encoder.stages] == [2, 2, 1]
    assert encoder.channels == (5, 3, 3)
    assert encoder.reductions == (1, 2, 8)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "densenet121", "mnasnet0_5", "regnet_y_400mf"])
def test_torchvision__last_level_is_what_the_model_pools(name):
    torch.manual_seed(0)
    encoder = build_torchvision(Modality("rgb", "image", (3, 64, 64)), name, "none").eval()
    torch.manual_seed(0)
    reference = models.get_model(name, weights=None).eval()
    classifier = reference.fc if hasattr(reference, "fc") else reference.classifier
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(classifier(encoder(x)[-1].mean(dim=(2, 3))), reference(x))


def test_torchvision__is_left_in_training_mode_with_untouched_batch_norm():
    encoder = build_torchvision(Modality("rgb", "image", (3, 64, 64)), "mobilenet_v3_small", "none")
    assert all(part.training for part in encoder.modules())
    norms = [part for part in encoder.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert all(norm.num_batches_tracked == 0 for norm in norms)


def test_torchvision__reads_safetensors_with_adapted_first_convolution(tmp_path):
    source = models.get_model("mobilenet_v3_small", weights=None)
    path = str(tmp_path / "rgb.safetensors")
    save_file(source.state_dict(), path)
    encoder = build_torchvision(Modality("rgbd", "image", (4, 32, 32)), "mobilenet_v3_small", path)
    weight = source.features[0][0].weight
    # closed form: the given channels in turn, times 3 / 4
    torch.testing.assert_close(encoder.stages[0][0][0].weight, weight[:, [0, 1, 2, 0]] * 0.75)


@pytest.mark.parametrize("name", ["resnet19", "swin_t", "fcn_resnet50"])
def test_torchvision__unknown_model_is_refused_with_the_families(name):
    with pytest.raises(RobustmmError, match=rf"unknown model '{name}'.* Known families: convnext, densenet"):
        build_torchvision(Modality("rgb", "image", (3, 64, 64)), name, "none")


def test_torchvision__suggests_the_closest_name():
    with pytest.raises(RobustmmError, match=r"unknown model 'mobilnet_v2' - did you mean 'mobilenet_v2'\?"):
        build_torchvision(Modality("rgb", "image", (3, 64, 64)), "mobilnet_v2", "none")


def test_torchvision__that_cannot_be_imported_is_a_mistake_with_a_repair(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(RobustmmError, match=r"^torchvision .* and torch .* cannot be imported: .* Uninstall both"):
        build_torchvision(Modality("rgb", "image", (3, 64, 64)), "resnet18", "none")
