"""Encoders of segmentation-models-pytorch by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from robustmm import Component, Encoder, Modality, Options, RobustmmError, ShapeError, did_you_mean, hookimpl

from .._smp import import_smp  # noqa: TID252  # installed under another name than its folder's
from ._layers import check_rank
from ._weights import WEIGHTS_HELP, load_backbone, read_safetensors

#: What precedes the name of a timm model.
FOREIGN = ("tu-", "timm-")
#: Classifiers in the weight files that the library's encoders take; an encoder has none.
CLASSIFIERS = ("fc.", "_fc.", "head.", "linear.", "last_linear.", "classifier.")


class SMPOptions(Options):
    """Options of the encoder.

    Args:
        model: The library's name of an encoder.
        depth: How often the grid is halved. A transformer without a level at 1/2 has depth - 1 levels, another depth.
        weights: What to start from; nothing is fetched unless asked for by name.
    """

    model: str = Field(description="the library's name of an encoder, such as mit_b0; tu-NAME for NAME of timm")
    depth: int = Field(5, ge=3, le=5, description="how often the grid is halved: 5 ends at 1/32 of the input's size")
    weights: str = Field("none", description=WEIGHTS_HELP)

    @classmethod
    def contract_example(cls) -> dict[str, Any]:
        """A small network without its last stages."""
        return {"model": "mobilenet_v2", "depth": 3}


class SMPEncoder(Encoder):
    """An encoder of the library; all of it is one stage.

    How one level follows from another is written anew in each of its families, so there is no chain of stages to run
    one by one. It is for trunks that encode each modality by itself; a trunk that fuses between stages needs an encoder
    with as many stages as levels, such as ``resnet18``.

    The levels begin at 1/2 of the input's size, or at 1/4 where the model has none at 1/2. The library's feature at the
    input's own size is left out: its decoders use none either.

    Args:
        model: Made by the library.
    """

    def __init__(self, model: nn.Module) -> None:
        widths: Any = model.out_channels
        self.kept = tuple(place for place, width in enumerate(widths) if place > 0 and width > 0)
        channels = tuple(widths[place] for place in self.kept)
        super().__init__(nn.ModuleList([model]), channels, tuple(2**place for place in self.kept))

    def forward(self, x: Tensor) -> list[Tensor]:
        """See `Encoder.forward`."""
        features: list[Tensor] = self.stages[0](x)
        return [features[place] for place in self.kept]


class Unused(nn.Module):
    """Stands where a module was whose result no level needs."""

    def forward(self, x: Any, *args: Any, **settings: Any) -> Any:
        """The first argument."""
        return x


def build_smp(modality: Modality, model: str, depth: int, weights: str) -> SMPEncoder:
    """The levels of an encoder, without the layers that only a greater depth or a classifier would use.

    Weights in a file carry the names of the library's encoder, of which torchvision's ResNets have the same; a
    classifier and layers that are not used may be there or not. A first convolution for another number of channels is
    adapted: in a file by `adapt_channels`, in ImageNet weights by the library, in the same way.

    Raises:
        ShapeError: the modality is not (D, H, W), or the model does not take pictures of its size.
        RobustmmError: the library is not installed, has no such model or no such weights, or could not fetch them.
        CheckpointError: the file is not safetensors or does not fit.
    """
    check_rank("smp", modality, "(D, H, W)")
    encoders = import_smp("encoders")
    _check_name(model, encoders.encoders)
    from_file = weights != "none" and (Path(weights).suffix != "" or Path(weights).exists())
    fetched = None if weights == "none" or from_file else weights
    if fetched is not None:
        _check_fetchable(model, fetched, encoders.encoders)
    try:
        network: nn.Module = encoders.get_encoder(model, in_channels=modality.shape[0], depth=depth, weights=fetched)
    except (OSError, RuntimeError, ValueError, KeyError) as error:  # no network; timm says no in many ways
        raise RobustmmError(
            f"encoder 'smp': could not make '{model}' of depth {depth} with weights '{weights}': "
            f"{str(error).rstrip('.')}. "
            "Set weights to 'none' or to the path of a .safetensors file, or take another model"
        ) from error
    names = set(network.state_dict())
    leave_out(network, unused_parameters(network, modality, model))
    if from_file:
        _load(network, weights, names)
    return SMPEncoder(network)


def _check_name(name: str, known: Collection[str]) -> None:
    if name not in known and not name.startswith(FOREIGN):
        raise RobustmmError(
            f"encoder 'smp': unknown model '{name}'{did_you_mean(name, known)}. "
            "segmentation_models_pytorch.encoders.get_encoder_names() names them all; tu-NAME is NAME of timm"
        )


def _check_fetchable(name: str, weights: str, known: Mapping[str, Any]) -> None:
    """Refuse weights that the library does not have: timm's models have those of their name alone."""
    offered = ["imagenet"] if name.startswith(FOREIGN) else list(known[name]["pretrained_settings"])
    if weights not in offered:
        raise RobustmmError(
            f"encoder 'smp': '{name}' has no weights '{weights}'{did_you_mean(weights, offered)} "
            f"(none, {', '.join(offered)}, or the path of a .safetensors file)"
        )


@torch.enable_grad()
def unused_parameters(network: nn.Module, modality: Modality, name: str) -> set[str]:
    """Names of the parameters that no level depends on, found on a copy without values.

    Raises:
        ShapeError: the model does not take pictures of the modality's size.
    """
    copy = deepcopy(network).to("meta").eval()
    try:
        levels = copy(torch.empty(1, *modality.shape, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as error:  # models check sizes by assertions, or not at all
        size, reason = "x".join(map(str, modality.shape[1:])), str(error).rstrip(".")
        raise ShapeError(
            f"encoder 'smp': '{name}' does not take pictures of {size}, as modality '{modality.name}' has: {reason}. "
            "Choose a size that 32 divides, or the size that the model's name states, or take another model"
        ) from error
    torch.autograd.backward([level.sum() for level in levels[1:] if level.shape[1]])
    return {name for name, parameter in copy.named_parameters() if parameter.grad is None}


def leave_out(network: nn.Module, unused: Collection[str]) -> None:
    """Replace the largest modules all of whose parameters are ``unused``: they would cost memory, and some time."""
    for name, child in network.named_children():
        own = {f"{name}.{parameter}" for parameter, _ in child.named_parameters()}
        if own and own <= set(unused):
            setattr(network, name, Unused())
        elif own & set(unused):
            leave_out(child, [one.removeprefix(f"{name}.") for one in unused if one.startswith(f"{name}.")])


def _load(network: nn.Module, path: str, names: Collection[str]) -> None:
    """Load a file; of ``names``, all that the encoder had, those that it no longer has are passed over."""
    own = network.state_dict()
    state = {
        name: value
        for name, value in read_safetensors(path).items()
        if name in own or (name not in names and not name.startswith(CLASSIFIERS))
    }
    load_backbone(network, state, "fc", path)


@hookimpl
def robustmm_register_encoders(register: Callable[[Component], None]) -> None:
    """Offer the library's encoders."""
    register(
        Component(
            "smp",
            build_smp,
            SMPOptions,
            "Any encoder of segmentation-models-pytorch by name, with any number of channels.",
            "segmentation-models-pytorch (qubvel-org/segmentation_models.pytorch)",
            suits=frozenset({"image", "spectrogram"}),
        )
    )
