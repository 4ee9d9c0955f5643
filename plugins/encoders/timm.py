"""Backbones of timm by name; needs the extra ``robustmm[timm]``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from robustmm import Component, Encoder, Modality, Options, RobustmmError, did_you_mean, hookimpl, import_torchvision

from ._layers import check_rank
from ._weights import WEIGHTS_HELP, load_backbone, read_safetensors

Setting = bool | int | float | str


class TimmOptions(Options):
    """Options of the encoder.

    Args:
        model: timm's name, with or without the tag of its weights.
        weights: What to start from; nothing is fetched unless asked for by name.
        settings: Further arguments of ``timm.create_model``.
    """

    model: str = Field(description="timm's name of a model, such as resnet10t or convnext_atto")
    weights: str = Field("none", description=WEIGHTS_HELP)
    settings: dict[str, Setting] = Field(
        {}, description="further arguments of timm.create_model, such as drop_path_rate or img_size"
    )

    @classmethod
    def contract_example(cls) -> dict[str, Any]:
        """The smallest ResNet."""
        return {"model": "resnet10t"}


class TimmEncoder(Encoder):
    """A timm feature extractor; its levels do not come from a chain of modules, so the whole of it is one stage.

    Args:
        model: Made with ``features_only=True``.
    """

    def __init__(self, model: nn.Module) -> None:
        info: Any = model.feature_info
        super().__init__(nn.ModuleList([model]), tuple(info.channels()), tuple(info.reduction()))
        self.channels_last = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, x: Tensor) -> list[Tensor]:
        """See `Encoder.forward`."""
        levels: list[Tensor] = self.stages[0](x)
        return [level.movedim(-1, 1) for level in levels] if self.channels_last else list(levels)


def build_timm(modality: Modality, model: str, weights: str, settings: Mapping[str, Setting]) -> Encoder:
    """The levels that timm offers; a first convolution for another number of channels is adapted by timm.

    Raises:
        ShapeError: the modality is not (D, H, W).
        RobustmmError: timm is not installed, has no such model, cannot make features of it, or weights could not be
            fetched.
        CheckpointError: the file is not safetensors or does not fit.
    """
    check_rank("timm", modality, "(D, H, W)")
    timm = import_timm()
    if not timm.is_model(model):
        raise RobustmmError(
            f"encoder 'timm': unknown model '{model}'{did_you_mean(model, timm.list_models()) or '.'} "
            "timm.list_models() names them all"
        )
    arguments: dict[str, Any] = {"in_chans": modality.shape[0], **settings}
    if weights == "imagenet":
        arguments |= {"pretrained": True}
    elif weights != "none":
        _check_fit(timm, model, weights)
        arguments |= {"pretrained": True, "pretrained_cfg_overlay": {"file": weights}}
    try:
        return TimmEncoder(timm.create_model(model, features_only=True, **arguments))
    except (OSError, RuntimeError, ValueError, TypeError, AttributeError) as error:  # timm says no in many ways
        raise RobustmmError(
            f"encoder 'timm': could not make features of '{model}' with weights '{weights}': {error}. "
            "Try weights: none, another model, or other settings"
        ) from error


def import_timm() -> ModuleType:
    """Import timm.

    Raises:
        RobustmmError: it is not installed or cannot be imported, with the repair.
    """
    try:
        import timm
    except (ImportError, RuntimeError, OSError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "timm":
            raise RobustmmError("encoder 'timm' needs timm: pip install 'robustmm[timm]'") from error
        import_torchvision()  # timm is built on it, and its failure is the one that can be explained
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise RobustmmError(f"encoder 'timm': timm cannot be imported ({text}); install it again") from error
    module: ModuleType = timm
    return module


def _check_fit(timm: ModuleType, model: str, path: str) -> None:
    """Refuse a file whose names or shapes differ: timm itself leaves what does not fit at random, in silence."""
    whole = timm.create_model(model, pretrained=False)
    classifier = whole.pretrained_cfg.get("classifier") or "classifier"
    load_backbone(whole, read_safetensors(path), classifier, path)


@hookimpl
def robustmm_register_encoders(register: Callable[[Component], None]) -> None:
    """Offer timm's backbones."""
    register(
        Component(
            "timm",
            build_timm,
            TimmOptions,
            "Any feature extractor of timm by name, with any number of channels.",
            "timm (huggingface/pytorch-image-models); pip install 'robustmm[timm]'",
            suits=frozenset({"image", "spectrogram"}),
        )
    )
