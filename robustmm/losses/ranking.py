"""Ranking of confidence by history: who was hard to classify should be less sure.

Source: QMF (ICML 2023, arXiv:2306.02050) and its released code, after confidence-aware learning (ICML 2020).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from robustmm.errors import ShapeError
from robustmm.losses.precision import full_precision


def normalised_history(history: Tensor) -> Tensor:
    """Accumulated losses of the whole training set, moved to [0, 1] by their least and largest.

    Args:
        history: (N,), one value per training sample.

    Returns:
        (N,), without gradient; all 0 while all samples have the same history, as at the start, where the released
        code divides 0 by 0. At least float32.
    """
    with torch.no_grad(), full_precision(history) as (history,):
        if not len(history):
            return history
        least, largest = history.aminmax()
        spread = largest - least
        return (history - least) / torch.where(spread > 0, spread, torch.ones_like(spread))


def confidence_ranking(
    confidence: Tensor,
    history: Tensor,
    *,
    form: Literal["paper", "code"] = "paper",
    presence: Tensor | None = None,
) -> Tensor:
    """Hinge on pairs of samples whose confidence does not follow the order of their histories.

    Each sample is paired with the next one of the batch, the last with the first. In the paper's form the sample with
    the larger history must be less confident, by at least the difference of both histories. Pairs of equal history
    count 0.

    Args:
        confidence: (R,), any size.
        history: Values of `normalised_history` for these samples, (R,); receives no gradient.
        form: ``code`` is the released loss, which takes that difference for a slack instead of a required gap: its
            margin has the other sign, so orders that are wrong by less than it cost nothing.
        presence: (R,) bool; samples without the modality leave the pairing, and their neighbours become a pair.

    Returns:
        Scalar, mean over the pairs, at least 0; 0 for fewer than two samples. At least float32.

    Raises:
        ShapeError: The shapes are not all (R,).
    """
    if presence is None:
        presence = torch.ones(confidence.shape, dtype=torch.bool, device=confidence.device)
    if confidence.ndim != 1 or not confidence.shape == history.shape == presence.shape:
        given = ", ".join(str(tuple(tensor.shape)) for tensor in (confidence, history, presence))
        raise ShapeError(f"confidence_ranking: confidence, history and presence are {given}; all must be (R,)")
    with full_precision(confidence, history.detach()) as (confidence, history):
        # Present samples first, in their order: pairs without a count on the host, which would wait for the device.
        order = presence.logical_not().byte().argsort(stable=True)
        present, place = presence[order], torch.arange(len(order), device=order.device)
        following = torch.where(place + 1 < presence.sum(), place + 1, 0)
        own = confidence[order].masked_fill(~present, 0.0)
        past = history[order].masked_fill(~present, 0.0)
        difference = past - past[following]
        gap = difference.abs() if form == "paper" else -difference.abs()
        hinge = (difference.sign() * (own - own[following]) + gap).relu()
        return hinge.masked_fill(~present, 0.0).sum() / presence.sum().clamp_min(1)
