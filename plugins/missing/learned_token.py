"""A learned vector in place of an absent modality's feature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from robustmm import Component, MissingPolicy, Options, hookimpl, where_present

#: Deviation of the tokens at the start, as usual for mask tokens of transformers.
TOKEN_STD = 0.02


class LearnedToken(MissingPolicy):
    """Absent rows take a learned vector, one per modality and level; on maps it stands at every position.

    A fusion treats every modality as present.

    Args:
        channels: Modality -> channels by level.
    """

    stands_in = True

    def __init__(self, channels: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.tokens = nn.ParameterDict(
            {
                f"{name}_{level}": nn.Parameter(torch.randn(width) * TOKEN_STD)
                for name, levels in channels.items()
                for level, width in enumerate(levels)
            }
        )

    def on_feature(self, feature: Tensor, present: Tensor, *, modality: str, level: int) -> Tensor:
        """The token in absent rows."""
        token = self.tokens[f"{modality}_{level}"].to(feature.dtype)
        return where_present(feature, present, token.view(-1, *[1] * (feature.dim() - 2)))


@hookimpl
def robustmm_register_missing_policies(register: Callable[[Component], None]) -> None:
    """Offer learned tokens."""
    register(
        Component(
            "learned_token",
            LearnedToken,
            Options,
            "A learned vector per modality and level stands in for an absent feature.",
            "standard",
            provides=frozenset({"stands_in"}),
        )
    )
