"""Separate encoders, fused behind them."""

from __future__ import annotations

from collections.abc import Callable

from robustmm import Component, LateTrunk, Options, TrunkParts, hookimpl


def build_late(parts: TrunkParts) -> LateTrunk:
    """See `robustmm.LateTrunk`."""
    return LateTrunk.of(parts)


@hookimpl
def robustmm_register_trunks(register: Callable[[Component], None]) -> None:
    """Offer the trunk."""
    register(
        Component(
            "late",
            build_late,
            Options,
            "Separate encoders, fused behind them: as vectors, or as maps level by level.",
            "standard",
            provides=frozenset({"separate_encoders", "unimodal_heads"}),
        )
    )
