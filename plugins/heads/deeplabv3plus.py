"""The decoder of DeepLabV3+."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from robustmm import Component, Options, hookimpl

from .._smp import import_smp  # noqa: TID252  # installed under another name than its folder's
from ._smp import DENSE, SOURCE, DecoderHead, check_levels, resized

Rate = Annotated[int, Field(gt=0)]


class DeepLabV3PlusOptions(Options):
    """Options of the head.

    Args:
        decoder_channels: Width of the decoder.
        atrous_rates: Dilations of the three dilated convolutions on the coarsest level, in its own pixels. Encoders are
            not dilated here: the coarsest level is at 1/32 of the input for five levels, where 3, 6, 9 reach as far as
            the paper's 6, 12, 18 at 1/16.
        separable: Depthwise convolutions for the dilated ones.
        dropout: Share of activations set to zero in training, on the coarsest level.
        levels: The finest of that many coarsest levels is the fine one: of four, at 1/4 of the input if the coarsest is
            at 1/32.
    """

    decoder_channels: int = Field(256, gt=0, description="width of the decoder")
    atrous_rates: tuple[Rate, Rate, Rate] = Field(
        (3, 6, 9), description="dilations on the coarsest level: 3, 6, 9 suit 1/32 of the input, 6, 12, 18 suit 1/16"
    )
    separable: bool = Field(True, description="depthwise convolutions for the dilated ones")
    dropout: float = Field(0.5, ge=0, lt=1, description="share of activations set to zero in training")
    levels: int = Field(
        4, ge=2, description="the finest of this many coarsest levels gives the details; of fewer, the finest of all"
    )


class DeepLabV3Plus(DecoderHead):
    """Dilated convolutions and a global average on the coarsest level, joined with one fine level.

    The paper dilates the encoder's last stages too, so that its coarsest level is at 1/16 or 1/8; the encoders here are
    not changed, and the coarse feature is resized bilinearly to the fine level's real size.

    Args:
        channels: Channels of the fused levels, at least two.
        num_outputs: C.
        decoder_channels: Width of the decoder.
        atrous_rates: Three dilations.
        separable: Depthwise convolutions for the dilated ones.
        dropout: On the coarsest level.
        levels: See `DeepLabV3PlusOptions`.

    Raises:
        ShapeError: fewer than two levels.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_outputs: int,
        decoder_channels: int,
        atrous_rates: Sequence[int],
        separable: bool,
        dropout: float,
        levels: int,
    ) -> None:
        check_levels("deeplabv3plus", channels, 2)
        place = max(len(channels) - levels, 0)
        decoder = import_smp("decoders.deeplabv3.decoder").DeepLabV3PlusDecoder(
            encoder_channels=(0, 0, channels[place], channels[-1]),  # the decoder reads the third and the last
            encoder_depth=3,
            out_channels=decoder_channels,
            atrous_rates=atrous_rates,
            output_stride=16,  # of the resizing that is not used here
            aspp_separable=separable,
            aspp_dropout=dropout,
        )
        super().__init__("deeplabv3plus", decoder, decoder_channels, num_outputs)
        self.fine = place

    def decode(self, levels: list[Tensor], size: tuple[int, ...]) -> Tensor:
        """See `DecoderHead.decode`; the library's own would resize by a fixed factor."""
        part = self.decoder.get_submodule
        fine = part("block1")(levels[self.fine])
        coarse = resized(part("aspp")(levels[-1]), fine.shape[2:])
        feature: Tensor = part("block2")(torch.cat([coarse, fine], dim=1))
        return feature


@hookimpl
def robustmm_register_heads(register: Callable[[Component], None]) -> None:
    """Offer DeepLabV3+'s decoder."""
    register(
        Component(
            "deeplabv3plus",
            DeepLabV3Plus,
            DeepLabV3PlusOptions,
            "Dilated convolutions on the coarsest fused level, joined with one fine level; encoders are not dilated.",
            f"Chen et al., ECCV 2018, arXiv:1802.02611; {SOURCE}",
            fidelity="rebuilt",
            suits=DENSE,
        )
    )
