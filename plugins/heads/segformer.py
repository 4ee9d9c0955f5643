"""The decoder of SegFormer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import Field
from torch import Tensor

from robustmm import Component, Options, hookimpl

from .._smp import import_smp  # noqa: TID252  # installed under another name than its folder's
from ._smp import DENSE, LEVELS_HELP, SOURCE, DecoderHead


class SegFormerOptions(Options):
    """Options of the head.

    Args:
        decoder_channels: Width of the decoder.
        levels: Levels that are decoded. The paper's four are at 1/4 to 1/32 of the input.
    """

    decoder_channels: int = Field(256, gt=0, description="width of the decoder")
    levels: int = Field(4, gt=0, description=LEVELS_HELP)


class SegFormer(DecoderHead):
    """One linear layer per level, all resized to the finest one's size, joined by a 1x1 convolution.

    Args:
        channels: Channels of the fused levels, any number.
        num_outputs: C.
        decoder_channels: Width of the decoder.
        levels: See `SegFormerOptions`.
    """

    def __init__(self, channels: Sequence[int], num_outputs: int, decoder_channels: int, levels: int) -> None:
        decoder = import_smp("decoders.segformer.decoder").SegformerDecoder(
            encoder_channels=[0, 0, *channels[-levels:]],  # no channels at 1/2, as with the paper's encoder
            segmentation_channels=decoder_channels,
        )
        super().__init__("segformer", decoder, decoder_channels, num_outputs)
        self.levels = levels

    def decode(self, levels: list[Tensor], size: tuple[int, ...]) -> Tensor:
        """See `DecoderHead.decode`."""
        used = levels[-self.levels :]
        height, width = used[0].shape[2:]
        # the decoder takes its size, a quarter of the input's, from a first level, and leaves an empty second one out
        whole = used[0].new_empty(0, 0, 4 * height, 4 * width)
        feature: Tensor = self.decoder([whole, whole, *used])
        return feature


@hookimpl
def robustmm_register_heads(register: Callable[[Component], None]) -> None:
    """Offer SegFormer's decoder."""
    register(
        Component(
            "segformer",
            SegFormer,
            SegFormerOptions,
            "One linear layer per fused level, joined by a 1x1 convolution.",
            f"Xie et al., NeurIPS 2021, arXiv:2105.15203; {SOURCE}",
            fidelity="rebuilt",
            suits=DENSE,
        )
    )
