"""The configured learning rate throughout."""

from __future__ import annotations

from collections.abc import Callable

from robustmm import Component, hookimpl

from ._warmup import WarmedSchedule, WarmupOptions


@hookimpl
def robustmm_register_schedules(register: Callable[[Component], None]) -> None:
    """Offer the constant rate."""
    register(
        Component("constant", WarmedSchedule, WarmupOptions, "The configured learning rate throughout.", "standard")
    )
