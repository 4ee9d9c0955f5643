"""What the heads around decoders of segmentation-models-pytorch share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import interpolate

from robustmm import Head, ShapeError

from .._smp import import_smp  # noqa: TID252  # installed under another name than its folder's

#: Option text of every head that leaves the finest levels out.
LEVELS_HELP = "how many of the coarsest levels are decoded; of fewer, all are"
SOURCE = "segmentation-models-pytorch (qubvel-org/segmentation_models.pytorch)"
DENSE = frozenset({"dense"})


class DecoderHead(Head):
    """A decoder over the fused levels, a convolution to the classes, logits resized bilinearly to the target.

    Decoder and convolution start as the library starts them. The library's own models know the input's size and their
    encoder's; a head knows the levels alone, so the sizes are taken from them, whatever they are.

    Args:
        name: Registered name, for messages.
        decoder: Made by the library.
        width: Channels that it gives.
        num_outputs: C.
        kernel_size: Of the convolution to the classes; odd.
    """

    def __init__(self, name: str, decoder: nn.Module, width: int, num_outputs: int, kernel_size: int = 1) -> None:
        super().__init__()
        self.name = name
        self.decoder = decoder
        self.classify = nn.Conv2d(width, num_outputs, kernel_size, padding=kernel_size // 2)
        start = import_smp("base.initialization")
        start.initialize_decoder(self.decoder)
        start.initialize_head(self.classify)

    def decode(self, levels: list[Tensor], size: tuple[int, ...]) -> Tensor:
        """The decoder's feature.

        Args:
            levels: (B, D, h, w) each, from the finest to the coarsest.
            size: Of the target.
        """
        raise TypeError(f"{type(self).__name__} must define decode(levels, size)")

    def forward(self, fused: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
        """See `Head.forward`.

        Raises:
            ShapeError: a global target, or one sample in training where BatchNorm needs more.
        """
        if not size:
            raise ShapeError(f"head '{self.name}' predicts maps; for one prediction per sample use head 'linear'")
        try:
            feature = self.decode(list(fused), size)
        except ValueError as error:
            if len(fused[0]) > 1 or not self.training:
                raise
            raise ShapeError(
                f"head '{self.name}' cannot train on a batch of one sample ({error}); use a data.batch_size of at "
                f"least 2, or head 'fpn', which has no BatchNorm"
            ) from error
        return resized(self.classify(feature), size)


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """(B, D, h, w) bilinearly to another size; as it is where it fits."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return interpolate(x, tuple(size), mode="bilinear", align_corners=False)


def exact_pyramid(levels: Sequence[Tensor]) -> list[Tensor]:
    """Levels of which each is exactly twice the next in height and width; resized where that is not so already.

    The coarsest level stays, so odd sizes that were rounded up when halved grow by less than a pixel of it.
    """
    height, width = levels[-1].shape[2:]
    last = len(levels) - 1
    return [resized(one, (height << last - place, width << last - place)) for place, one in enumerate(levels)]


def check_levels(head: str, channels: Sequence[int], least: int) -> None:
    """Refuse too few fused levels.

    Raises:
        ShapeError: with both numbers.
    """
    if len(channels) < least:
        raise ShapeError(
            f"head '{head}' needs at least {least} fused levels, got {len(channels)}; use encoders with more levels, "
            f"or head 'unet', which takes any number"
        )
