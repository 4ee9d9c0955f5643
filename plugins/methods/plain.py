"""Joint training on all that is there."""

from __future__ import annotations

from collections.abc import Callable

from robustmm import Component, Method, Options, hookimpl


class PlainOptions(Options):
    """Joint training has no options."""


class Plain(Method):
    """Trunk, head and the task's loss; every sample shows all the modalities that it has.

    The baseline of every table: what a model does under missing modalities that has never met them in training.
    """

    sampler = "complete"


@hookimpl
def robustmm_register_methods(register: Callable[[Component], None]) -> None:
    """Offer the method."""
    register(
        Component(
            name="plain",
            build=Plain,
            options=PlainOptions,
            summary="Joint training on complete samples; never sees a missing modality.",
            source="standard",
        )
    )
