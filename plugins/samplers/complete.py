"""Everything that is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from robustmm import CombinationSampler, Component, Options, hookimpl


def build_complete(modalities: Sequence[str]) -> CombinationSampler:
    """The core's own sampler; ``modalities`` is not needed."""
    return CombinationSampler()


@hookimpl
def robustmm_register_samplers(register: Callable[[Component], None]) -> None:
    """Offer complete samples."""
    register(Component("complete", build_complete, Options, "Show everything that a sample has.", "standard"))
