"""The residual networks of ESANet: torchvision's, with the blocks exchanged in the two small ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from pydantic import Field, model_validator
from torch import nn

from robustmm import Component, Encoder, Modality, Options, RobustmmError, hookimpl, import_torchvision

from .._esanet import NonBottleneck1D  # noqa: TID252  # installed under another name
from ._layers import check_rank
from ._weights import WEIGHTS_HELP, load_backbone, read_safetensors, replace_first_convolution

Block = Literal["non_bottleneck_1d", "basic", "bottleneck"]

#: Name -> its network in torchvision, and the blocks in each of the four groups.
DEPTHS: dict[str, tuple[str, list[int]]] = {
    "esanet_resnet18": ("resnet18", [2, 2, 2, 2]),
    "esanet_resnet34": ("resnet34", [3, 4, 6, 3]),
    "esanet_resnet50": ("resnet50", [3, 4, 6, 3]),
}
#: The weights that ESANet started from; torchvision has others for ResNet-50 since.
PUBLISHED = "IMAGENET1K_V1"
#: Before every name in the checkpoints of the authors' own ImageNet training.
PREFIX = "encoder."


class BottleneckOptions(Options):
    """Options of the deep encoder.

    Args:
        weights: What to start from; nothing is fetched unless asked for by name.
    """

    weights: str = Field("none", description=WEIGHTS_HELP)


class ExchangedOptions(BottleneckOptions):
    """Options of the encoders whose blocks can be exchanged.

    Args:
        block: ``non_bottleneck_1d`` as ESANet has it by default, or ResNet's own ``basic``.
        weights: What to start from. For ``non_bottleneck_1d`` torchvision has none; those that the authors of ESANet
            trained on ImageNet can be given as a file.
    """

    block: Literal["non_bottleneck_1d", "basic"] = Field(
        "non_bottleneck_1d", description="'non_bottleneck_1d' (ESANet's default) or ResNet's own 'basic'"
    )

    @model_validator(mode="after")
    def _has_weights(self) -> ExchangedOptions:
        if self.block == "non_bottleneck_1d" and self.weights == "imagenet":
            raise ValueError(
                "weights 'imagenet' are for block 'basic'; for 'non_bottleneck_1d' torchvision has none: convert those "
                "that the authors of ESANet publish (TUI-NICR/ESANet) with safetensors.torch.save_file, and give "
                "the path"
            )
        return self


def build_esanet_resnet(modality: Modality, weights: str, block: Block = "bottleneck", *, name: str) -> Encoder:
    """Levels: stem, then the four groups of residual blocks; reductions 2, 4, 8, 16, 32.

    The pooling behind the stem belongs to the first group, so that the stem's own level can be fused before it. Names
    in files are torchvision's, with those of ESANet's code for ``non_bottleneck_1d``; the prefix of the authors'
    checkpoints may stay. A first convolution for another number of channels is adapted: one channel takes the sum.
    Everything else starts with Kaiming normal (fan out), as in the authors' code.

    Raises:
        ShapeError: the modality is not (D, H, W).
        CheckpointError: the file is not safetensors or does not fit.
        RobustmmError: ImageNet weights were asked for and could not be fetched.
    """
    check_rank(name, modality, "(D, H, W)")
    model = _classifier(name, block, weights)
    replace_first_convolution(model, modality.shape[0], adapt=weights == "imagenet")
    if weights not in ("none", "imagenet"):
        state = {key.removeprefix(PREFIX): value for key, value in read_safetensors(weights).items()}
        load_backbone(model, state, "fc", weights)
    return _levels(model)


def _classifier(name: str, block: Block, weights: str) -> nn.Module:
    published, depth = DEPTHS[name]
    resnet = import_torchvision("torchvision.models.resnet")
    if weights != "imagenet":
        blocks = {"non_bottleneck_1d": NonBottleneck1D, "basic": resnet.BasicBlock, "bottleneck": resnet.Bottleneck}
        model: nn.Module = resnet.ResNet(blocks[block], depth, num_classes=1)
        return model
    try:
        model = getattr(resnet, published)(weights=PUBLISHED)
    except (OSError, RuntimeError) as error:  # no network, no such address, or a file with a wrong checksum
        raise RobustmmError(
            f"could not fetch the ImageNet weights of '{published}': {error}. "
            "Set weights to 'none', or to the path of a .safetensors file"
        ) from error
    return model


def _levels(model: nn.Module) -> Encoder:
    part = model.get_submodule
    stem = nn.Sequential(part("conv1"), part("bn1"), part("relu"))
    first = nn.Sequential(part("maxpool"), part("layer1"))
    width = part("fc").in_features
    assert isinstance(width, int)
    channels = (64, width // 8, width // 4, width // 2, width)
    stages = nn.ModuleList([stem, first, part("layer2"), part("layer3"), part("layer4")])
    return Encoder(stages, channels, (2, 4, 8, 16, 32))


@hookimpl
def robustmm_register_encoders(register: Callable[[Component], None]) -> None:
    """Offer the three depths that ESANet has."""
    for name, (published, _) in DEPTHS.items():
        exchanged = published != "resnet50"
        register(
            Component(
                name,
                partial(build_esanet_resnet, name=name),
                ExchangedOptions if exchanged else BottleneckOptions,
                f"ESANet's {published.replace('resnet', 'ResNet-')}"
                f"{', by default of NonBottleneck1D blocks' if exchanged else ''}, with any number of channels.",
                "Seichter et al., ICRA 2021, arXiv:2011.06961; code TUI-NICR/ESANet",
                fidelity="code",
                suits=frozenset({"image", "spectrogram"}),
            )
        )
