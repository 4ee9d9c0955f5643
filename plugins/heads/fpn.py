"""The decoder of feature pyramid networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from robustmm import Component, Options, hookimpl

from .._smp import import_smp  # noqa: TID252  # installed under another name than its folder's
from ._smp import DENSE, SOURCE, DecoderHead, check_levels, exact_pyramid

#: The decoder is written for four levels, and its groups of GroupNorm are 32.
LEVELS, GROUPS = 4, 32


class FPNOptions(Options):
    """Options of the head; the defaults are the library's.

    Args:
        pyramid_channels: Width of the pyramid.
        segmentation_channels: Width of the four branches that are merged.
        merge: Whether the branches are added or stand side by side.
        dropout: Share of channels set to zero in training, before the classes.
    """

    pyramid_channels: int = Field(256, gt=0, description="width of the pyramid")
    segmentation_channels: int = Field(
        128, gt=0, multiple_of=GROUPS, description="width of the merged branches, a multiple of 32"
    )
    merge: Literal["add", "cat"] = Field("add", description="add the branches or put them side by side")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of channels set to zero in training")


class FPN(DecoderHead):
    """A pyramid over the four coarsest levels, each brought to the size of the finest of them, and merged.

    Every level must be twice the next; those that are not are resized bilinearly. It has GroupNorm instead of
    BatchNorm, so it trains on one sample too.

    Args:
        channels: Channels of the fused levels, at least four.
        num_outputs: C.
        pyramid_channels: Width of the pyramid.
        segmentation_channels: Width of the branches.
        merge: ``add`` or ``cat``.
        dropout: Before the classes.

    Raises:
        ShapeError: fewer than four levels.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_outputs: int,
        pyramid_channels: int,
        segmentation_channels: int,
        merge: Literal["add", "cat"],
        dropout: float,
    ) -> None:
        check_levels("fpn", channels, LEVELS)
        decoder = import_smp("decoders.fpn.decoder").FPNDecoder(
            encoder_channels=[0, *channels[-LEVELS:]],
            encoder_depth=LEVELS,
            pyramid_channels=pyramid_channels,
            segmentation_channels=segmentation_channels,
            merge_policy=merge,
            dropout=dropout,
        )
        super().__init__("fpn", decoder, decoder.out_channels, num_outputs)

    def decode(self, levels: list[Tensor], size: tuple[int, ...]) -> Tensor:
        """See `DecoderHead.decode`."""
        feature: Tensor = self.decoder(exact_pyramid(levels[-LEVELS:]))
        return feature


@hookimpl
def robustmm_register_heads(register: Callable[[Component], None]) -> None:
    """Offer the feature pyramid's decoder."""
    register(
        Component(
            "fpn",
            FPN,
            FPNOptions,
            "Feature pyramid over the four coarsest fused levels, without BatchNorm.",
            f"Kirillov et al., CVPR 2019, arXiv:1901.02446; {SOURCE}",
            fidelity="rebuilt",
            suits=DENSE,
        )
    )
