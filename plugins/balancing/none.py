"""No balancing."""

from __future__ import annotations

from collections.abc import Callable

from robustmm import Balancer, Component, Options, hookimpl


class NoneOptions(Options):
    """There is nothing to set."""


class NoBalancing(Balancer):
    """Every hook as it stands: one update a step on the plain sum of the loss terms, gradients unedited."""


@hookimpl
def robustmm_register_balancers(register: Callable[[Component], None]) -> None:
    """Offer the strategy."""
    register(
        Component(
            name="none",
            build=NoBalancing,
            options=NoneOptions,
            summary="Sum of the loss terms, gradients as they are.",
            source="standard",
        )
    )
