"""Sum of features that each gate their own channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import torch
from pydantic import Field
from torch import Tensor, nn

from robustmm import Component, Fusion, Options, hookimpl, pooled, where_present

from .._esanet import HE_INIT_HELP, he_initialise  # noqa: TID252  # installed under another name
from ._levels import Channels, by_level, check_equal_widths, fused_widths, with_presence


class SEAddOptions(Options):
    """Options of the fusion.

    Args:
        reduction: Channels divided by the width of the gate's hidden layer, which is at least 1.
        he_init: See `robustmm_plugins._esanet.he_initialise`; the layer in front of the sigmoid is spared.
    """

    reduction: int = Field(16, gt=0, description="channels divided by the width of the gate's hidden layer")
    he_init: bool = Field(False, description=HE_INIT_HELP)


class SqueezeExcitation(nn.Module):
    """``x * sigmoid(W_2 relu(W_1 mean(x) + b_1) + b_2)``, so 0 for 0, whatever the biases are.

    Args:
        channels: D.
        reduction: D divided by the width of the hidden layer.
        he_init: Kaiming normal for the hidden layer.
    """

    def __init__(self, channels: int, reduction: int, *, he_init: bool = False) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)
        if he_init:
            he_initialise(self.squeeze)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) or (B, D, ...) -> the same shape."""
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(pooled(x)))))  # (B, D)
        return x * gate.view(*gate.shape, *[1] * (x.dim() - 2))


class SEAdd(Fusion):
    """``sum of SE_m(f_m)`` over the present modalities, each with a gate of its own at every level.

    An absent modality contributes exactly 0. A lone modality still passes through its gate.

    Args:
        channels: Modality -> channels by level.
        reduction: See `SqueezeExcitation`.
        he_init: Likewise.

    Raises:
        ShapeError: modalities differ in channels at some level.

    Source:
        ESANet (ICRA 2021, arXiv:2011.06961): reduction 16, 1x1 convolutions with bias, ReLU inside. MMANet and DMRNet
        multiply the features by presence in front of the gates, with the same result.
    """

    def __init__(self, channels: Channels, reduction: int, he_init: bool) -> None:
        levels = by_level("se_add", channels)
        check_equal_widths("se_add", levels)
        super().__init__(fused_widths(levels, None))
        self.gates = nn.ModuleDict(
            {
                f"{name}_{level}": SqueezeExcitation(width, reduction, he_init=he_init)
                for level, widths in enumerate(levels)
                for name, width in widths.items()
            }
        )

    def forward(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> Tensor:
        """See `Fusion.forward`; zero where nothing is present."""
        return reduce(torch.add, self.summands(level, features, presence).values())

    def summands(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> dict[str, Tensor]:
        """Each modality's gated feature, zero in rows where it is absent."""
        terms = {}
        for name, feature, present in with_presence(features, presence):
            gated = self.gates[f"{name}_{level}"](feature)
            terms[name] = where_present(gated, present, gated.new_zeros(()))
        return terms


@hookimpl
def robustmm_register_fusions(register: Callable[[Component], None]) -> None:
    """Offer the gated sum."""
    register(
        Component(
            "se_add",
            SEAdd,
            SEAddOptions,
            "Sum over the present modalities, each gating its own channels by squeeze and excitation.",
            "Seichter et al., ICRA 2021, arXiv:2011.06961; code TUI-NICR/ESANet",
            fidelity="code",
        )
    )
