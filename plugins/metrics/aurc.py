"""Area under the risk-coverage curve: whether the model knows when it is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from robustmm import Component, Metric, Options, aurc, hookimpl, predicted_class

from ._rows import rows_of


class RiskCoverage(Metric):
    """Mean error rate of the k most confident rows, over all k; 0..1, less is better.

    The confidence is the largest probability. It ranks all rows at once, so two numbers are kept for each row.

    Args:
        classes: Class names; index = label.
    """

    direction = "min"

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        self._confidence: list[Tensor] = []
        self._correct: list[Tensor] = []

    def update(self, logits: Tensor, target: Tensor) -> None:
        """See `Metric.update`."""
        logits, target = rows_of(logits, target)
        self._confidence.append(logits.softmax(dim=1).amax(dim=1).cpu())
        self._correct.append((predicted_class(logits) == target).cpu())

    def merge(self, other: Metric) -> None:
        """See `Metric.merge`."""
        other = cast(RiskCoverage, other)
        self._confidence += other._confidence
        self._correct += other._correct

    def compute(self) -> float | None:
        """See `robustmm.aurc`."""
        return aurc(torch.cat(self._confidence), torch.cat(self._correct)) if self._confidence else None


class RiskCoverageOptions(Options):
    """The score has no options."""


@hookimpl
def robustmm_register_metrics(register: Callable[[Component], None]) -> None:
    """Offer the area under the risk-coverage curve."""
    register(
        Component(
            "aurc",
            RiskCoverage,
            RiskCoverageOptions,
            "Error rate among the most confident predictions, averaged over coverage, 0 to 1; less is better.",
            "Y. Geifman et al., ICLR 2019, arXiv:1805.08206",
            requires=frozenset({"class_probability"}),
        )
    )
