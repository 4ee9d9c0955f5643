"""The contract of methods that decide per modality and combine decisions instead of features."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustmm.masks import where_present
from robustmm.methods.method import Blueprint, Method
from robustmm.models.head import Head
from robustmm.models.trunk import Features
from robustmm.types import Batch, Output


class SeparateHeads(Head):
    """One head per modality, each on that modality's own levels.

    Args:
        heads: Modality -> head, in column order.
    """

    def __init__(self, heads: nn.ModuleDict) -> None:
        super().__init__()
        self.heads = heads

    def opinions(self, features: Features, size: tuple[int, ...]) -> Tensor:
        """What each head gives, (B, M, C) or (B, M, C, *size)."""
        return torch.stack([self.heads[name](levels, size) for name, levels in features.items()], dim=1)


class Decision(NamedTuple):
    """What a rule makes of the modalities' opinions.

    Args:
        logits: (B, C) or (B, C, H, W).
        extras: What the method's losses need beside, and what an application may want to know; see `Output.extras`.
    """

    logits: Tensor
    extras: Mapping[str, Tensor] = MappingProxyType({})


class DecisionMethod(Method):
    """Separate encoders, a head of the configured kind per modality, and a rule that combines what the heads say.

    No feature is fused, so the configured fusion and missing policy have no part in it: an absent modality is left out
    by the rule. Components of this kind require ``separate_encoders``, conflict with ``stands_in``, and provide
    ``no_fusion``, with which balancers that edit what enters a fusion conflict.

    In an output, ``extras["opinions"]`` (B, M, C, ...) is what the heads gave, with 0 for an absent modality.
    """

    head: SeparateHeads

    def __init__(self, blueprint: Blueprint, *, outputs: int | None = None) -> None:
        """Build the networks.

        Args:
            blueprint: See `Blueprint`.
            outputs: Of each head, where opinions are other than logits; None means the task's.
        """
        trunk = blueprint.make_trunk(fused=False)
        super().__init__(blueprint, trunk=trunk, head=SeparateHeads(blueprint.make_heads(trunk, outputs)))

    def readout(self, features: Features, fused: list[Tensor], presence: Tensor, size: tuple[int, ...]) -> Output:
        """See `Method.readout`."""
        opinions = self.head.opinions(features, size)
        shown = where_present(opinions.flatten(0, 1), presence.flatten(), opinions.new_zeros(())).view_as(opinions)
        decision = self.decide(shown, presence)
        return Output(decision.logits, presence, features, fused, extras={"opinions": shown, **decision.extras})

    def decide(self, opinions: Tensor, presence: Tensor) -> Decision:
        """`combine`, with what else came out on the way; override it where losses need that, else `combine` alone."""
        return Decision(self.combine(opinions, presence))

    def combine(self, opinions: Tensor, presence: Tensor) -> Tensor:
        """One prediction from those of the modalities.

        Args:
            opinions: (B, M, C) or (B, M, C, H, W); 0 where the modality is absent.
            presence: (B, M) bool. Rows without any modality occur in probes and must give something finite.

        Returns:
            Logits, (B, C) or (B, C, H, W). As it stands, the mean over the present modalities.
        """
        return mean_over_present(opinions, presence)

    def unimodal_losses(self, output: Output, batch: Batch) -> list[Tensor]:
        """The task's loss of each modality's own opinion, over the samples that show it; 0 where none does."""
        return [
            self.task.subset_loss(own, batch.target, output.presence[:, column])
            for column, own in enumerate(output.extras["opinions"].unbind(dim=1))
        ]


def mean_over_present(opinions: Tensor, presence: Tensor) -> Tensor:
    """Mean over present modalities: (B, M, ...) and (B, M) bool -> (B, ...); 0 where none is present."""
    weight = presence / presence.sum(dim=1, keepdim=True).clamp_min(1)  # (B, M)
    return (opinions * weight.to(opinions.dtype).view(*weight.shape, *[1] * (opinions.dim() - 2))).sum(dim=1)
