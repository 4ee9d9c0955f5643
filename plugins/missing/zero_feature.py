"""Zeros in place of an absent modality's feature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from robustmm import Component, MissingPolicy, Options, hookimpl


def build_zero_feature(channels: Mapping[str, Sequence[int]]) -> MissingPolicy:
    """The core's own policy; ``channels`` is not needed."""
    return MissingPolicy()


@hookimpl
def robustmm_register_missing_policies(register: Callable[[Component], None]) -> None:
    """Offer zero features."""
    register(
        Component(
            "zero_feature",
            build_zero_feature,
            Options,
            "Features of an absent modality are zero; its encoder need not run.",
            "standard",
        )
    )
