"""Negative log-likelihood: how surprised the model is by the truth."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from robustmm import Component, Options, hookimpl, negative_log_likelihood

from ._rows import RowMean


class NegativeLogLikelihood(RowMean):
    """Mean of minus the log-probability of the true class, in nats, at least 0; less is better.

    Infinite where a logit was NaN or infinite.
    """

    def values(self, logits: Tensor, target: Tensor) -> Tensor:
        """See `robustmm.negative_log_likelihood`."""
        return negative_log_likelihood(logits, target)


class NegativeLogLikelihoodOptions(Options):
    """The score has no options."""


@hookimpl
def robustmm_register_metrics(register: Callable[[Component], None]) -> None:
    """Offer the negative log-likelihood."""
    register(
        Component(
            "nll",
            NegativeLogLikelihood,
            NegativeLogLikelihoodOptions,
            "Minus the log-probability of the true class, in nats; less is better.",
            "standard",
            requires=frozenset({"class_probability"}),
        )
    )
