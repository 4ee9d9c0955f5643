"""The decoder of UPerNet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import Field
from torch import Tensor

from robustmm import Component, Options, hookimpl

from .._smp import import_smp  # noqa: TID252  # installed under another name than its folder's
from ._smp import DENSE, LEVELS_HELP, SOURCE, DecoderHead, check_levels


class UPerNetOptions(Options):
    """Options of the head.

    Args:
        decoder_channels: Width of the decoder.
        levels: Levels that are decoded. The paper's four are at 1/4 to 1/32 of the input.
    """

    decoder_channels: int = Field(256, gt=0, description="width of the decoder")
    levels: int = Field(4, ge=2, description=LEVELS_HELP)


class UPerNet(DecoderHead):
    """Pyramid pooling on the coarsest level, then a feature pyramid, all its levels joined at the finest one's size.

    Args:
        channels: Channels of the fused levels, at least two.
        num_outputs: C.
        decoder_channels: Width of the decoder.
        levels: See `UPerNetOptions`.

    Raises:
        ShapeError: fewer than two levels.
    """

    def __init__(self, channels: Sequence[int], num_outputs: int, decoder_channels: int, levels: int) -> None:
        check_levels("upernet", channels, 2)
        decoder = import_smp("decoders.upernet.decoder").UPerNetDecoder(
            encoder_channels=(0, 0, *channels[-levels:]),  # the first two stand for 1/1 and 1/2, which are left out
            decoder_channels=decoder_channels,
        )
        super().__init__("upernet", decoder, decoder_channels, num_outputs)
        self.levels = levels

    def decode(self, levels: list[Tensor], size: tuple[int, ...]) -> Tensor:
        """See `DecoderHead.decode`."""
        used = levels[-self.levels :]
        feature: Tensor = self.decoder([used[0], used[0], *used])
        return feature


@hookimpl
def robustmm_register_heads(register: Callable[[Component], None]) -> None:
    """Offer UPerNet's decoder."""
    register(
        Component(
            "upernet",
            UPerNet,
            UPerNetOptions,
            "Pyramid pooling and a feature pyramid over the coarsest fused levels.",
            f"Xiao et al., ECCV 2018, arXiv:1807.10221; {SOURCE}",
            fidelity="rebuilt",
            suits=DENSE,
        )
    )
