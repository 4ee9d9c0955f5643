"""Features that open or close one another by a sigmoid gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from robustmm import Component, Fusion, Options, RobustmmError, hookimpl, where_present

from ._levels import DIM_HELP, ChannelLinear, Channels, Projections, by_level, check_modality, fused_widths


class GatedOptions(Options):
    """Options of the fusion.

    Args:
        dim: Width of the fused feature; None keeps that of the first modality at each level.
        gate: Modality that gates all others, as published; None lets each be gated by the mean of the others.
    """

    dim: int | None = Field(128, gt=0, description=DIM_HELP)
    gate: str | None = Field(
        None, description="modality that gates the others, as published; null gates each by the mean of the others"
    )


class Gated(Fusion):
    """``W_o sum_m sigmoid(g_m) * W_m f_m`` over the present modalities.

    With a gate modality x, ``g_m = V_x f_x`` for every other m, and x itself enters through the gate alone: with two
    modalities this is the published ``W_o(sigmoid(V f_x) * W f_y)``. Without one, g_m is the mean of ``V_j f_j`` over
    the other present modalities, so that no modality's absence hides the rest. Where no gating modality is present g_m
    is 0 and the gate one half; an absent modality drops its term with the bias.

    Args:
        channels: Modality -> channels by level.
        dim: Width of the fused feature at every level, or None for that of the first modality.
        gate: Gating modality, or None.

    Raises:
        RobustmmError: the gate is unknown, or there is nothing for it to gate.

    Source:
        Gated fusion as in the code of OGM-GE (GeWu-Lab/OGM-GE_CVPR2022); the forms for more than two are ours.
    """

    def __init__(self, channels: Channels, dim: int | None, gate: str | None) -> None:
        levels = by_level("gated", channels)
        super().__init__(fused_widths(levels, dim))
        if gate is not None:
            check_modality("gated", "gate", gate, channels)
            if len(channels) == 1:
                raise RobustmmError(f"fusion 'gated': gate '{gate}' is the only modality and has nothing to gate")
        self.gated = tuple(name for name in channels if name != gate)
        self.gating = (gate,) if gate is not None else self.gated if len(self.gated) > 1 else ()
        self.gates = Projections([{name: widths[name] for name in self.gating} for widths in levels], self.channels)
        self.values = Projections([{name: widths[name] for name in self.gated} for widths in levels], self.channels)
        self.outputs = nn.ModuleList(ChannelLinear(width, width) for width in self.channels)

    def forward(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> Tensor:
        """See `Fusion.forward`."""
        columns = dict(zip(features, presence.unbind(dim=1), strict=True))
        votes = {name: self._vote(level, name, features[name], columns[name]) for name in self.gating}
        terms = []
        for name in self.gated:
            value = self.values(level, name, features[name])
            gate = torch.sigmoid(_mean_vote(value, votes, columns, leave_out=name))
            terms.append(where_present(gate * value, columns[name], value.new_zeros(())))
        fused: Tensor = self.outputs[level](torch.stack(terms).sum(dim=0))
        return fused

    def _vote(self, level: int, name: str, feature: Tensor, present: Tensor) -> Tensor:
        logits = self.gates(level, name, feature)
        return where_present(logits, present, logits.new_zeros(()))


def _mean_vote(like: Tensor, votes: Mapping[str, Tensor], columns: Mapping[str, Tensor], leave_out: str) -> Tensor:
    """Mean of the present modalities' votes but one, of the shape of ``like``; 0 where there are none."""
    total, count = torch.zeros_like(like), torch.zeros_like(columns[leave_out], dtype=like.dtype)
    for name, vote in votes.items():
        if name != leave_out:
            total, count = total + vote, count + columns[name]
    return total / count.clamp_min(1).view(-1, *[1] * (like.dim() - 1))


@hookimpl
def robustmm_register_fusions(register: Callable[[Component], None]) -> None:
    """Offer gated fusion."""
    register(
        Component(
            "gated",
            Gated,
            GatedOptions,
            "Features gated by one modality, or each by the others.",
            "code of OGM-GE, arXiv:2203.15332; symmetric and many-modality forms our own",
            fidelity="part",
        )
    )
