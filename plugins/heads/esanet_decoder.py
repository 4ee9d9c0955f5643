"""The decoder of ESANet: up in steps of two, a fused level added at each, with a prediction on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate

from robustmm import Component, Head, Options, ShapeError, hookimpl

from .._esanet import HE_INIT_HELP, NonBottleneck1D, conv_bn_act, he_initialise  # noqa: TID252  # installed under another name

#: Doublings behind the last level that is added, which has a quarter of the picture's size.
LAST_DOUBLINGS = 2


class ESANetDecoderOptions(Options):
    """Options of the head.

    Args:
        blocks: NonBottleneck1D blocks in each decoder module.
        he_init: See `robustmm_plugins._esanet.he_initialise`; what gives logits and what upsamples is spared.
    """

    blocks: int = Field(3, ge=0, description="NonBottleneck1D blocks in each decoder module")
    he_init: bool = Field(False, description=HE_INIT_HELP)


class LearnedUpsampling(nn.Module):
    """Repetition, then a 3x3 convolution of each channel by itself, which starts as bilinear interpolation.

    The convolution pads with zeros and has a bias, 0 at the start (``learned-3x3-zeropad`` in the code of ESANet).

    Args:
        channels: D.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.smooth = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        kernel = torch.tensor([0.25, 0.5, 0.25])
        with torch.no_grad():
            self.smooth.weight.copy_(torch.outer(kernel, kernel).expand_as(self.smooth.weight))
            nn.init.zeros_(self.smooth.bias)  # type: ignore[arg-type]  # there is one

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """(B, D, h, w) -> (B, D, *size); twice h and w, or less where the finer map has an odd size."""
        smooth: Tensor = self.smooth(interpolate(x, tuple(size), mode="nearest"))
        return smooth


class DecoderModule(nn.Module):
    """A 3x3 convolution, blocks, a side output, then the map at twice the size with a level added.

    Args:
        channels: D of what comes from below.
        width: D' of the level that is added, and of the result.
        num_outputs: C.
        blocks: Number of NonBottleneck1D blocks.
        he_init: Kaiming normal for convolution and blocks.
    """

    def __init__(self, channels: int, width: int, num_outputs: int, blocks: int, *, he_init: bool) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            conv_bn_act(channels, width, 3), *(NonBottleneck1D(width, width) for _ in range(blocks))
        )
        self.side = nn.Conv2d(width, num_outputs, 1)
        self.upsample = LearnedUpsampling(width)
        if he_init:
            he_initialise(self.inner)

    def forward(self, x: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, h, w) and (B, D', H, W) -> the inner map, (B, D', h, w), and the sum, (B, D', H, W)."""
        inner = self.inner(x)
        return inner, self.upsample(inner, skip.shape[2:]) + skip


class ESANetDecoder(Head):
    """One `DecoderModule` for each fused level but the last, from coarse to fine, then logits and two doublings.

    The widths are those of the levels, since these are added: 512, 256, 128 behind the trunk ``esanet``. Side outputs,
    one per module, are at 1/8, 1/16 and 1/32 of the picture's size; they exist in training alone.

    Args:
        channels: Channels of the fused levels, finest first.
        num_outputs: C.
        blocks: NonBottleneck1D blocks in each module.
        he_init: Kaiming normal where ESANet has it, see `DecoderModule`.

    Raises:
        ShapeError: fewer than two levels.

    Source:
        ESANet (ICRA 2021, arXiv:2011.06961), code TUI-NICR/ESANet, whose sizes must be multiples of 32. Maps whose
        level above has an odd size are repeated to that size here, and logits that come out larger than the target are
        resized bilinearly.
    """

    def __init__(self, channels: Sequence[int], num_outputs: int, blocks: int, he_init: bool) -> None:
        super().__init__()
        if len(channels) < 2:
            raise ShapeError(
                f"head 'esanet_decoder' adds finer levels on its way up and needs at least two, got {len(channels)}; "
                "use it behind a trunk that gives several levels, such as esanet"
            )
        *skips, below = channels
        self.stages = nn.ModuleList()
        for width in reversed(skips):
            self.stages.append(DecoderModule(below, width, num_outputs, blocks, he_init=he_init))
            below = width
        self.classify = nn.Conv2d(below, num_outputs, 3, padding=1)
        self.doublings = nn.ModuleList(LearnedUpsampling(num_outputs) for _ in range(LAST_DOUBLINGS))

    def forward(self, fused: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
        """See `Head.forward`."""
        return self._logits(self._decode(fused)[-1], size)

    def scales(self, fused: Sequence[Tensor], size: tuple[int, ...]) -> list[Tensor]:
        """See `Head.scales`: after the logits those of the modules, finest first."""
        *inner, last = self._decode(fused)
        sides = [stage.get_submodule("side")(x) for stage, x in zip(self.stages, inner, strict=True)]
        return [self._logits(last, size), *reversed(sides)]

    def first_step(self, fused: Sequence[Tensor]) -> Tensor:
        """The first module's result with its level added, (B, D, H/16, W/16) behind the trunk ``esanet``."""
        _, first = self.stages[0](fused[-1], fused[-2])
        return cast(Tensor, first)

    def _decode(self, fused: Sequence[Tensor]) -> list[Tensor]:
        """The inner maps of all modules, coarse to fine, and the last module's sum."""
        x, inner = fused[-1], []
        for stage, skip in zip(self.stages, reversed(fused[:-1]), strict=True):
            own, x = stage(x, skip)
            inner.append(own)
        return [*inner, x]

    def _logits(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        logits: Tensor = self.classify(x)
        for double in self.doublings:
            logits = double(logits, [2 * side for side in logits.shape[2:]])
        if tuple(logits.shape[2:]) == size:
            return logits
        return interpolate(logits, size, mode="bilinear", align_corners=False)


@hookimpl
def robustmm_register_heads(register: Callable[[Component], None]) -> None:
    """Offer the decoder."""
    register(
        Component(
            "esanet_decoder",
            ESANetDecoder,
            ESANetDecoderOptions,
            "Up in steps of two with a fused level added at each and learned upsampling; three side outputs.",
            "Seichter et al., ICRA 2021, arXiv:2011.06961; code TUI-NICR/ESANet",
            fidelity="code",
            suits=frozenset({"dense"}),
        )
    )
