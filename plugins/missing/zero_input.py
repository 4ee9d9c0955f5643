"""Zeros in place of an absent modality's input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from robustmm import Component, MissingPolicy, Options, hookimpl, where_present


class ZeroInput(MissingPolicy):
    """Absent rows are encoded from zeros, after scaling: from the mean input where inputs are standardised.

    The network is not told what is missing: a fusion treats every modality as present.

    Args:
        channels: Modality -> channels by level; not needed.
    """

    encodes_absent = True
    stands_in = True

    def __init__(self, channels: Mapping[str, Sequence[int]]) -> None:
        super().__init__()

    def on_input(self, x: Tensor, present: Tensor, *, modality: str) -> Tensor:
        """Zeros in absent rows."""
        return where_present(x, present, x.new_zeros(()))

    def on_feature(self, feature: Tensor, present: Tensor, *, modality: str, level: int) -> Tensor:
        """What the encoder made of the zeros."""
        return feature


@hookimpl
def robustmm_register_missing_policies(register: Callable[[Component], None]) -> None:
    """Offer zero inputs."""
    register(
        Component(
            "zero_input",
            ZeroInput,
            Options,
            "An absent modality's input is zero after scaling; its encoder runs on it.",
            "standard",
            provides=frozenset({"stands_in"}),
        )
    )
