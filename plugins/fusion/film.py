"""One modality scales and shifts the features of the others (FiLM)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from robustmm import Component, Fusion, Options, hookimpl, where_present

from ._levels import DIM_HELP, ChannelLinear, Channels, Projections, by_level, check_modality, fused_widths


class FiLMOptions(Options):
    """Options of the fusion.

    Args:
        dim: Width of the fused feature; None keeps that of the first modality at each level.
        condition: Modality that scales and shifts the others; None means the first column.
    """

    dim: int | None = Field(128, gt=0, description=DIM_HELP)
    condition: str | None = Field(
        None, description="modality that scales and shifts the others; null means the first one"
    )


class FiLM(Fusion):
    """``W_o(beta + sum_m gamma_m * W_m f_m)`` with (gamma, beta) linear in the conditioning modality's feature.

    Plain gamma, not 1 + gamma. Every other modality has a gamma of its own; one beta serves them all, because their
    betas would only ever be added. An absent modality drops its term; where the conditioning one is absent a learned
    (gamma, beta) stands in, (1, 0) at the start. With one modality alone beta is all there is.

    Args:
        channels: Modality -> channels by level.
        dim: Width of the fused feature at every level, or None for that of the first modality.
        condition: Conditioning modality, or None for the first.

    Raises:
        RobustmmError: no such modality.

    Source:
        Perez et al., AAAI 2018, arXiv:1709.07871; for more than two modalities our own.
    """

    def __init__(self, channels: Channels, dim: int | None, condition: str | None) -> None:
        levels = by_level("film", channels)
        super().__init__(fused_widths(levels, dim))
        self.condition = next(iter(channels)) if condition is None else condition
        check_modality("film", "condition", self.condition, channels)
        self.others = tuple(name for name in channels if name != self.condition)
        count = len(self.others) + 1
        self.generators = Projections(
            [{self.condition: widths[self.condition]} for widths in levels], [count * width for width in self.channels]
        )
        self.defaults = nn.ParameterList(
            nn.Parameter(torch.cat([torch.ones(len(self.others) * width), torch.zeros(width)]))
            for width in self.channels
        )
        self.values = Projections([{name: widths[name] for name in self.others} for widths in levels], self.channels)
        self.outputs = nn.ModuleList(ChannelLinear(width, width) for width in self.channels)

    def forward(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> Tensor:
        """See `Fusion.forward`."""
        columns = dict(zip(features, presence.unbind(dim=1), strict=True))
        generated = self.generators(level, self.condition, features[self.condition])
        default = self.defaults[level].to(generated.dtype).view(-1, *[1] * (generated.dim() - 2))
        film = where_present(generated, columns[self.condition], default)
        *gammas, modulated = film.chunk(len(self.others) + 1, dim=1)
        for name, gamma in zip(self.others, gammas, strict=True):
            value = gamma * self.values(level, name, features[name])
            modulated = modulated + where_present(value, columns[name], value.new_zeros(()))
        fused: Tensor = self.outputs[level](modulated)
        return fused


@hookimpl
def robustmm_register_fusions(register: Callable[[Component], None]) -> None:
    """Offer FiLM."""
    register(
        Component(
            "film",
            FiLM,
            FiLMOptions,
            "One modality scales and shifts the features of the others.",
            "Perez et al., AAAI 2018, arXiv:1709.07871",
            fidelity="rebuilt",
        )
    )
