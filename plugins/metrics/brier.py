"""Brier score: calibration and sharpness of all class probabilities in one number."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from robustmm import Component, Options, brier_score, hookimpl

from ._rows import RowMean


class Brier(RowMean):
    """Mean squared distance of the probabilities from the one-hot truth, 0..2; less is better."""

    def values(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `robustmm.brier_score`."""
        return brier_score(logits.softmax(dim=1), target)


class BrierOptions(Options):
    """The score has no options."""


@hookimpl
def robustmm_register_metrics(register: Callable[[Component], None]) -> None:
    """Offer the Brier score."""
    register(
        Component(
            "brier",
            Brier,
            BrierOptions,
            "Squared distance of the probabilities from the truth, summed over classes, 0 to 2; less is better.",
            "G. W. Brier, Monthly Weather Review 78(1), 1950",
            requires=frozenset({"class_probability"}),
        )
    )
