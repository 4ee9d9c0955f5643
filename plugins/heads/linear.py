"""One linear layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn.functional import linear

from robustmm import Component, Head, Options, hookimpl

from ._dense import predict


class Linear(Head):
    """A linear layer on the last fused level; on maps one prediction per position, resized to the target.

    Args:
        channels: Channels of the fused levels.
        num_outputs: C.
    """

    def __init__(self, channels: Sequence[int], num_outputs: int) -> None:
        super().__init__()
        self.classify = nn.Linear(channels[-1], num_outputs)

    def forward(self, fused: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
        """See `Head.forward`."""
        return predict(self.classify, fused, size)

    def linear_part(self, fused: Sequence[Tensor], bias_share: Tensor) -> Tensor:
        """``W f_m + b / k``, (B, C), or (B, C, H, W) at the level's own size."""
        weight, bias = self.classify.weight, self.classify.bias
        part = linear(fused[-1].movedim(1, -1), weight).movedim(-1, 1)
        return part + (bias_share[:, None] * bias).view(*part.shape[:2], *[1] * (part.dim() - 2))


@hookimpl
def robustmm_register_heads(register: Callable[[Component], None]) -> None:
    """Offer the linear head."""
    register(Component("linear", Linear, Options, "One linear layer on the last fused level.", "standard"))
