"""Residual networks with any number of input channels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pydantic import Field
from torch import nn

from robustmm import Component, Encoder, Modality, Options, hookimpl

from ._layers import check_rank
from ._weights import (
    WEIGHTS_HELP,
    load_backbone,
    read_safetensors,
    replace_first_convolution,
    torchvision_model,
)

NAMES = ("resnet18", "resnet34", "resnet50")


class ResNetOptions(Options):
    """Options of the encoder.

    Args:
        small_input: A 3x3 stem with stride 1 and no pooling, as is usual for pictures of 32 pixels. ImageNet weights
            have none such: the stem's convolution then starts at random.
        weights: What to start from; nothing is fetched unless asked for by name.
    """

    small_input: bool = Field(False, description="3x3 stem with stride 1 and no pooling, for small pictures")
    weights: str = Field("none", description=WEIGHTS_HELP)


def build_resnet(modality: Modality, small_input: bool, weights: str, *, name: str) -> Encoder:
    """Levels: stem, then the four groups of residual blocks.

    Reductions are 2, 4, 8, 16, 32: the pooling belongs to the first group, so that the stem's own level can be fused
    before it. With ``small_input`` they are 1, 1, 2, 4, 8. Weights in a file carry torchvision's names; a first
    convolution for another number of channels is adapted (`adapt_channels`).

    Raises:
        ShapeError: the modality is not (D, H, W).
        CheckpointError: the file is not safetensors or does not fit.
        RobustmmError: ImageNet weights were asked for and could not be fetched.
    """
    check_rank(name, modality, "(D, H, W)")
    model = torchvision_model(name, weights)
    if small_input:
        _shrink_stem(model)
    replace_first_convolution(model, modality.shape[0], adapt=weights == "imagenet")
    if weights not in ("none", "imagenet"):
        load_backbone(model, read_safetensors(weights), "fc", weights)
    return _levels(model, small_input)


def _shrink_stem(model: nn.Module) -> None:
    stem = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    model.conv1 = stem


def _levels(model: nn.Module, small_input: bool) -> Encoder:
    part = model.get_submodule
    stem = nn.Sequential(part("conv1"), part("bn1"), part("relu"))
    first = part("layer1") if small_input else nn.Sequential(part("maxpool"), part("layer1"))
    stages = nn.ModuleList([stem, first, part("layer2"), part("layer3"), part("layer4")])
    width = part("fc").in_features
    assert isinstance(width, int)
    channels = (64, width // 8, width // 4, width // 2, width)
    return Encoder(stages, channels, (1, 1, 2, 4, 8) if small_input else (2, 4, 8, 16, 32))


@hookimpl
def robustmm_register_encoders(register: Callable[[Component], None]) -> None:
    """Offer the three usual depths."""
    for name in NAMES:
        register(
            Component(
                name,
                partial(build_resnet, name=name),
                ResNetOptions,
                f"{name.replace('resnet', 'ResNet-')} for pictures and spectrograms with any number of channels.",
                "He et al., CVPR 2016, arXiv:1512.03385; torchvision",
                suits=frozenset({"image", "spectrogram"}),
            )
        )
