"""The decoder of U-Net."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor

from robustmm import Component, Options, ShapeError, hookimpl

from .._smp import import_smp  # noqa: TID252  # installed under another name than its folder's
from ._smp import DENSE, SOURCE, DecoderHead

#: The library's widths for five levels; fewer levels take the last ones, which belong to the same grids.
WIDTHS = (256, 128, 64, 32, 16)


class UNetOptions(Options):
    """Options of the head.

    Args:
        decoder_channels: Width of each step from coarse to fine. As many as levels end at twice the finest level's
            size, one less at that level's own size, at about half of the head's cost.
    """

    decoder_channels: tuple[Annotated[int, Field(gt=0)], ...] | None = Field(
        None,
        min_length=1,
        description="widths of the steps from coarse to fine, each doubling the grid, at most one per level; null: "
        "256, 128, 64, 32, 16, of which fewer levels take the last",
    )


class UNet(DecoderHead):
    """Each step doubles the grid (nearest), joins the level of that size and applies two 3x3 convolutions.

    Args:
        channels: Channels of the fused levels, any number.
        num_outputs: C.
        decoder_channels: See `UNetOptions`.

    Raises:
        ShapeError: more steps than levels.
    """

    def __init__(self, channels: Sequence[int], num_outputs: int, decoder_channels: Sequence[int] | None) -> None:
        if decoder_channels is None:
            decoder_channels = ((WIDTHS[0],) * len(channels) + WIDTHS)[-len(channels) :]
        if len(decoder_channels) > len(channels):
            raise ShapeError(
                f"head 'unet': decoder_channels has {len(decoder_channels)} widths for {len(channels)} fused levels; "
                f"give 1 to {len(channels)}"
            )
        decoder = import_smp("decoders.unet.decoder").UnetDecoder(
            encoder_channels=(0, *channels),  # the first stands for the input, which the decoder leaves out
            decoder_channels=tuple(decoder_channels),
            n_blocks=len(decoder_channels),
        )
        super().__init__("unet", decoder, decoder_channels[-1], num_outputs, kernel_size=3)

    def decode(self, levels: list[Tensor], size: tuple[int, ...]) -> Tensor:
        """See `DecoderHead.decode`."""
        finest = levels[0]
        top = finest.new_empty(0, 0, *_doubled(finest.shape[2:], size))  # the decoder asks for its size alone
        feature: Tensor = self.decoder([top, *levels])
        return feature


def _doubled(finest: Sequence[int], size: Sequence[int]) -> tuple[int, ...]:
    """Twice the finest level's size; the target's, where halving that one, rounded up, gives the finest level's."""
    if all((whole + 1) // 2 == half for whole, half in zip(size, finest, strict=True)):
        return tuple(size)
    return tuple(2 * half for half in finest)


@hookimpl
def robustmm_register_heads(register: Callable[[Component], None]) -> None:
    """Offer U-Net's decoder."""
    register(
        Component(
            "unet",
            UNet,
            UNetOptions,
            "Decoder of U-Net over all fused levels, at twice the size of the finest.",
            f"Ronneberger et al., MICCAI 2015, arXiv:1505.04597; {SOURCE}",
            fidelity="rebuilt",
            suits=DENSE,
        )
    )
