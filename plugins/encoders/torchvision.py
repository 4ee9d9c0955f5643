"""Classification backbones of torchvision by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from robustmm import Component, Encoder, Modality, Options, RobustmmError, did_you_mean, hookimpl, import_torchvision

from ._layers import check_rank
from ._weights import (
    WEIGHTS_HELP,
    load_backbone,
    read_safetensors,
    replace_first_convolution,
    torchvision_model,
)

#: Families whose convolutional part is a chain of modules; the others mix levels or put channels last.
FAMILIES = (
    *("convnext", "densenet", "efficientnet", "mnasnet", "mobilenet"),
    *("regnet", "resnet", "resnext", "vgg", "wide_resnet"),
)
#: Grid on which the levels are found; every family halves it five times without rounding.
PROBE_SIZE = 64


class TorchvisionOptions(Options):
    """Options of the encoder.

    Args:
        model: torchvision's name.
        weights: What to start from; nothing is fetched unless asked for by name.
    """

    model: str = Field(description="torchvision's name of a classification model, such as mobilenet_v3_small")
    weights: str = Field("none", description=WEIGHTS_HELP)

    @classmethod
    def contract_example(cls) -> dict[str, Any]:
        """A small network."""
        return {"model": "mobilenet_v3_small"}


def build_torchvision(modality: Modality, model: str, weights: str) -> Encoder:
    """A backbone without its classifier; a level ends where the next module makes the grid smaller.

    Weights in a file carry torchvision's names; a first convolution for another number of channels is adapted. What the
    classifier does before its linear layer (the last normalisation of ConvNeXt, for example) is left out.

    Raises:
        ShapeError: the modality is not (D, H, W).
        RobustmmError: no such model, or ImageNet weights that could not be fetched.
        CheckpointError: the file is not safetensors or does not fit.
    """
    check_rank("torchvision", modality, "(D, H, W)")
    _check_name(model)
    backbone = torchvision_model(model, weights)
    replace_first_convolution(backbone, modality.shape[0], adapt=weights == "imagenet")
    if weights not in ("none", "imagenet"):
        classifier = "fc" if hasattr(backbone, "fc") else "classifier"
        load_backbone(backbone, read_safetensors(weights), classifier, weights)
    return cut_into_levels(_chain(backbone), modality.shape[0])


def _check_name(name: str) -> None:
    models = import_torchvision("torchvision.models")
    known = [known for known in models.list_models(models) if known.startswith(FAMILIES)]
    if name not in known:
        raise RobustmmError(
            f"encoder 'torchvision': unknown model '{name}'{did_you_mean(name, known) or '.'} "
            f"Known families: {', '.join(FAMILIES)}"
        )


def _chain(backbone: nn.Module) -> list[nn.Module]:
    """The modules from the input to the last feature map, in the order in which they run."""
    part = backbone.get_submodule
    if hasattr(backbone, "trunk_output"):  # regnet
        return [part("stem"), *part("trunk_output").children()]
    if hasattr(backbone, "layer4"):  # resnet, resnext, wide_resnet
        return [part(name) for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")]
    chain = list(part("layers" if hasattr(backbone, "layers") else "features").children())
    # DenseNet's forward applies a ReLU of its own after its features
    return [*chain, nn.ReLU()] if isinstance(chain[-1], nn.BatchNorm2d) else chain


def cut_into_levels(chain: Sequence[nn.Module], channels: int) -> Encoder:
    """Group modules that run one after another into stages, one per grid size.

    Args:
        chain: Modules on (B, D, H, W); run once on zeros, in evaluation mode.
        channels: D of the input.
    """
    shapes = [tuple(level.shape[1:3]) for level in _levels(chain, channels)]
    ends = [i for i in range(len(chain)) if i + 1 == len(chain) or shapes[i + 1][1] != shapes[i][1]]
    starts = [0, *(end + 1 for end in ends)]
    stages = nn.ModuleList(nn.Sequential(*chain[a : b + 1]) for a, b in zip(starts, ends, strict=False))
    return Encoder(
        stages,
        tuple(shapes[end][0] for end in ends),
        tuple(PROBE_SIZE // shapes[end][1] for end in ends),
    )


@torch.no_grad()
def _levels(chain: Sequence[nn.Module], channels: int) -> list[Tensor]:
    x, levels = torch.zeros(1, channels, PROBE_SIZE, PROBE_SIZE), []
    for module in chain:
        x = module.eval()(x)
        module.train()
        levels.append(x)
    return levels


@hookimpl
def robustmm_register_encoders(register: Callable[[Component], None]) -> None:
    """Offer torchvision's backbones."""
    register(
        Component(
            "torchvision",
            build_torchvision,
            TorchvisionOptions,
            "Any convolutional backbone of torchvision by name, with any number of channels.",
            "torchvision.models",
            suits=frozenset({"image", "spectrogram"}),
        )
    )
