"""Presentation attack detection: how often attacks pass and live users are refused."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from robustmm.errors import ShapeError
from robustmm.metrics.confusion import hits, true_counts


class SpoofingErrors(NamedTuple):
    """Error rates, 0..1; None where the truth lacks the class that a rate is about.

    None rather than 0: a rate without samples is unknown, and 0 would read as perfect.

    Args:
        apcer: Share of attacks that were accepted; all attack types pooled.
        bpcer: Share of live presentations that were refused.
        acer: Mean of the two. A model that sees an attack everywhere, or nowhere, has 0.5.
    """

    apcer: float | None
    bpcer: float | None
    acer: float | None


def spoofing_errors(confusion: Tensor, *, live: int) -> SpoofingErrors:
    """Error rates at the decision that the confusion matrix holds (largest logit: threshold 0.5).

    Args:
        confusion: (2, 3) counts, rows = truth; a prediction that is no class is an error of its row.
        live: Index of the live (bona fide) class: 1 in CASIA-SURF, 0 in CeFA. It decides which rate is which; ACER is
            the same either way.

    Raises:
        ShapeError: There are not two classes, or ``live`` is neither 0 nor 1.

    Source:
        ISO/IEC 30107-3, with attack types pooled as in CASIA-SURF, MMANet and DMRNet. The released metric returns 0 for
        all three rates where one denominator is 0; here such a rate is None.
    """
    if confusion.shape != (2, 3):
        raise ShapeError(f"spoofing errors need two classes, a (2, 3) confusion matrix; got {tuple(confusion.shape)}")
    if live not in (0, 1):
        raise ShapeError(f"live is class {live}; it must be 0 or 1")
    total, wrong = true_counts(confusion), true_counts(confusion) - hits(confusion)
    bpcer, apcer = (_rate(wrong[index].item(), total[index].item()) for index in (live, 1 - live))
    acer = None if apcer is None or bpcer is None else (apcer + bpcer) / 2
    return SpoofingErrors(apcer, bpcer, acer)


def _rate(wrong: float, total: float) -> float | None:
    return wrong / total if total else None
