"""The trunk of ESANet: fusion behind every stage, a context module, and levels that are ready to be added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from robustmm import (
    Component,
    Modality,
    Options,
    RobustmmError,
    ShapeError,
    StagewiseTrunk,
    TrunkParts,
    did_you_mean,
    hookimpl,
)

from .._esanet import HE_INIT_HELP, conv_bn_act, he_initialise  # noqa: TID252  # installed under another name
from ._context import PyramidPooling

Context = Literal["ppm", "appm", "none"]
Positive = Annotated[int, Field(gt=0)]


class ESANetOptions(Options):
    """Options of the trunk.

    Args:
        carrier: Modality that goes on from the fused maps; None takes the first. ESANet's is RGB.
        context: ``ppm`` pools over fixed grids, ``appm`` over grids that grow with the picture, ``none`` leaves the
            last map as it is.
        bins: Sides of the grids. ESANet has 1, 5 by default, and 1, 2, 4, 8 for Cityscapes.
        context_channels: Channels behind ppm and appm.
        context_size: Height and width of the pictures for which the grids of ``appm`` are made: of those in training.
            None takes what the data set declares.
        skip_channels: Channels of the fused levels in front of the last, finest first. A level that has them already
            stays as it is; the others go through a 1x1 convolution with BatchNorm and ReLU.
        he_init: See `robustmm_plugins._esanet.he_initialise`; for context module and 1x1 convolutions.
    """

    carrier: str | None = Field(
        None, description="modality that goes on from the fused maps; null takes the first, ESANet's is rgb"
    )
    context: Context = Field(
        "ppm", description="'ppm' pools over fixed grids, 'appm' over grids that grow with the picture, or 'none'"
    )
    bins: tuple[Positive, ...] = Field(
        (1, 5), min_length=1, description="sides of the context's grids; ESANet has 1, 2, 4, 8 for Cityscapes"
    )
    context_channels: int = Field(512, gt=0, description="channels behind ppm and appm")
    context_size: tuple[Positive, Positive] | None = Field(
        None, description="height and width for which appm's grids are made; null takes what the data set declares"
    )
    skip_channels: tuple[Positive, ...] = Field(
        (128, 256, 512), min_length=1, description="channels of the fused levels in front of the last, finest first"
    )
    he_init: bool = Field(False, description=HE_INIT_HELP)


class Neck(nn.Module):
    """From fused maps to the levels that a decoder adds up: the last ones but the last, adapted, and the context.

    Args:
        channels: Of the fused maps of all stages.
        skip_channels: Wanted channels of the levels in front of the last.
        context: What the last map goes through.
    """

    def __init__(self, channels: Sequence[int], skip_channels: Sequence[int], context: nn.Module) -> None:
        super().__init__()
        given = channels[-1 - len(skip_channels) : -1]
        self.adapters = nn.ModuleList(
            nn.Identity() if own == wanted else conv_bn_act(own, wanted, 1)
            for own, wanted in zip(given, skip_channels, strict=True)
        )
        self.context = context

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps of all stages -> adapted levels, finest first, and the context module's result."""
        skips = maps[-1 - len(self.adapters) : -1]
        return [
            *(adapter(skip) for adapter, skip in zip(self.adapters, skips, strict=True)),
            self.context(maps[-1]),
        ]


def build_esanet(
    parts: TrunkParts,
    carrier: str | None,
    context: Context,
    bins: Sequence[int],
    context_channels: int,
    context_size: tuple[int, int] | None,
    skip_channels: Sequence[int],
    he_init: bool,
) -> StagewiseTrunk:
    """Encoders with a fusion behind every stage, of which the last ones give fused levels.

    With encoders of five stages (see ``esanet_resnet50``) the fused levels have 1/4, 1/8, 1/16 and 1/32 of the
    picture's size; the last is the context module's result. The stem's fused map serves the carrier alone.

    Any number of modalities takes part: ESANet has RGB as carrier and depth. With one modality alone and ``se_add``
    it is the authors' network for one modality.

    Raises:
        RobustmmError: no such carrier.
        ShapeError: encoders and fusion that do not fit, see `StagewiseTrunk`.

    Source:
        ESANet (ICRA 2021, arXiv:2011.06961), code TUI-NICR/ESANet. Absent modalities are masked at every fusion while
        the other modalities' own features go on unmasked, as in MMANet (CVPR 2023) and DMRNet (ECCV 2024).
    """
    names = [modality.name for modality in parts.modalities]
    carrier = names[0] if carrier is None else carrier
    if carrier not in names:
        hint = did_you_mean(carrier, names)
        raise RobustmmError(f"trunk 'esanet': carrier: no modality '{carrier}'{hint} (modalities: {', '.join(names)})")
    encoders = {name: parts.make_encoder(name) for name in names}
    widths = {name: encoder.channels for name, encoder in encoders.items()}
    fusion = parts.make_fusion(widths)
    _check_levels(fusion.channels, skip_channels)
    size = context_size or _size_of(next(one for one in parts.modalities if one.name == carrier))
    reduction = encoders[carrier].reductions[-1]
    module, width = _context_module(context, fusion.channels[-1], context_channels, bins, size, reduction)
    neck = Neck(fusion.channels, skip_channels, module)
    if he_init:
        he_initialise(neck)
    return StagewiseTrunk(
        parts.modalities,
        encoders,
        fusion,
        parts.make_policy(widths),
        neck,
        fused_channels=(*skip_channels, width),
        carrier=carrier,
        skip_absent=parts.skip_absent,
    )


def _check_levels(channels: Sequence[int], skip_channels: Sequence[int]) -> None:
    if len(channels) <= len(skip_channels):
        raise ShapeError(
            f"trunk 'esanet': {len(skip_channels)} skip_channels and the context need at least "
            f"{len(skip_channels) + 1} levels, the encoders have {len(channels)}"
        )


def _size_of(modality: Modality) -> tuple[int, int]:
    if len(modality.shape) != 3:
        raise ShapeError(f"trunk 'esanet' takes maps, modality '{modality.name}' has the shape {modality.shape}")
    return modality.shape[1], modality.shape[2]


def _context_module(
    context: Context, channels: int, width: int, bins: Sequence[int], size: tuple[int, int], reduction: int
) -> tuple[nn.Module, int]:
    """The module, and the channels behind it."""
    if context == "none":
        return nn.Identity(), channels
    reference = (max(size[0] // reduction, 1), max(size[1] // reduction, 1)) if context == "appm" else None
    return PyramidPooling(channels, width, bins, reference), width


@hookimpl
def robustmm_register_trunks(register: Callable[[Component], None]) -> None:
    """Offer the trunk."""
    register(
        Component(
            "esanet",
            build_esanet,
            ESANetOptions,
            "Fusion behind every stage, from which one modality goes on; pyramid pooling at the end.",
            "Seichter et al., ICRA 2021, arXiv:2011.06961; code TUI-NICR/ESANet",
            fidelity="code",
            provides=frozenset({"unimodal_heads"}),
            suits=frozenset({"dense"}),
        )
    )
