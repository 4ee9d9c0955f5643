"""Pretrained weights for torchvision models: from a local file or, when asked by name, from torchvision's server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from robustmm import CheckpointError, RobustmmError, import_torchvision

#: What the option ``weights`` of every pretrained encoder takes.
WEIGHTS_HELP = (
    "'none' (random), 'imagenet' (downloaded by the library that has the model), or the path of a .safetensors file"
)


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Fit a first convolution to another number of input channels.

    One channel takes the sum over the given ones: a grey picture then gives what its three equal channels gave. More
    channels repeat the given ones in turn, rescaled by old / new, which keeps the size of the response.

    Args:
        weight: (D', D, ...).
        channels: Wanted D.

    Returns:
        (D', channels, ...).
    """
    given = weight.shape[1]
    if given == channels:
        return weight
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    return weight[:, torch.arange(channels) % given] * (given / channels)


def replace_first_convolution(model: nn.Module, channels: int, *, adapt: bool) -> None:
    """Give a model's first convolution ``channels`` inputs.

    Args:
        model: Changed in place.
        channels: Wanted number of inputs.
        adapt: Take the weights from the old convolution (see `adapt_channels`); else Kaiming normal, fan out.
    """
    path, old = first_convolution(model)
    if old.in_channels == channels:
        return
    new = nn.Conv2d(
        channels,
        old.out_channels,
        kernel_size=(old.kernel_size[0], old.kernel_size[1]),
        stride=(old.stride[0], old.stride[1]),
        padding=old.padding if isinstance(old.padding, str) else (old.padding[0], old.padding[1]),
        bias=old.bias is not None,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    with torch.no_grad():
        if adapt:
            new.weight.copy_(adapt_channels(old.weight, channels))
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    parent, _, leaf = path.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new)


def first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d]:
    """The first 2-D convolution in the order of registration, with its dotted name."""
    return next((path, part) for path, part in model.named_modules() if isinstance(part, nn.Conv2d))


def read_safetensors(path: str) -> dict[str, Tensor]:
    """Read a state dict from a safetensors file; pickles are refused, because reading one can run its code.

    Raises:
        CheckpointError: another format, no such file, or a damaged one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if Path(path).suffix != ".safetensors":
        raise CheckpointError(
            f"weights '{path}': expected 'none', 'imagenet' or a .safetensors file. Pickled weights (.pt, .pth) "
            "can run code and are not read; convert a file you trust with safetensors.torch.save_file"
        )
    if not Path(path).is_file():
        raise CheckpointError(f"weights '{path}': no such file")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"weights '{path}': not a readable safetensors file ({error})") from error


def load_backbone(model: nn.Module, state: Mapping[str, Tensor], classifier: str, source: str) -> None:
    """Load weights into a model with the same names, the first convolution adapted; ``classifier.*`` may be absent.

    Raises:
        CheckpointError: names or shapes differ, with the first of each.
    """
    path, convolution = first_convolution(model)
    state = {name: value for name, value in state.items() if not name.startswith(classifier + ".")}
    key = f"{path}.weight"
    if key in state and state[key].dim() == convolution.weight.dim():
        state[key] = adapt_channels(state[key], convolution.in_channels)
    own = {name: value for name, value in model.state_dict().items() if not name.startswith(classifier + ".")}
    problems = [
        *(f"lacks {name}" for name in own if name not in state),
        *(f"has unknown {name}" for name in state if name not in own),
        *(
            f"{name} is {tuple(state[name].shape)}, the encoder needs {tuple(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ),
    ]
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"weights '{source}' do not fit: {'; '.join(problems[:3])}{more}")
    model.load_state_dict(dict(state), strict=False)


def torchvision_model(name: str, weights: str) -> nn.Module:
    """A torchvision classification model, random or, for ``imagenet``, with torchvision's default weights.

    Raises:
        RobustmmError: torchvision cannot be imported, or the weights could not be fetched.
    """
    models = import_torchvision("torchvision.models")
    if weights != "imagenet":
        model: nn.Module = models.get_model(name, weights=None)
        return model
    try:
        model = models.get_model(name, weights="DEFAULT")
    except (OSError, RuntimeError) as error:  # no network, no such address, or a file with a wrong checksum
        raise RobustmmError(
            f"could not fetch the ImageNet weights of '{name}': {error}. "
            "Set weights to 'none', or to the path of a .safetensors file"
        ) from error
    return model
