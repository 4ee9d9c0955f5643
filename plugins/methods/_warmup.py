"""A warning for runs that end before a method's extra losses begin."""

from __future__ import annotations

import warnings

from robustmm import Clock


def warn_if_never_past(method: str, warmup_epochs: int, what: str, clock: Clock) -> None:
    """Warn at the first step of a run whose epochs are all warm-up: ``what`` then has no effect."""
    if clock.step == 0 and clock.epochs <= warmup_epochs:
        warnings.warn(
            f"{method}: {what} begins after {warmup_epochs} warm-up epochs and the run has {clock.epochs}, "
            "so it has no effect; train longer or lower method.warmup_epochs",
            stacklevel=2,
        )
