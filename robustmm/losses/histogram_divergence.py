"""How far one combination's predictions drift from those of the complete input."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from robustmm.errors import ShapeError


def histogram_divergence(
    combination: Tensor, complete: Tensor, *, smoothing: Literal["softmax", "none"] = "softmax"
) -> Tensor:
    """KL divergence of a combination's class histogram from that of the complete input, in nats.

    MMANet calls the combination with the largest accumulated value weak.

    Args:
        combination: How often each class was predicted while modalities were missing, (C,); counts or frequencies.
        complete: The same with every modality present, (C,).
        smoothing: ``softmax`` passes both frequency vectors through a softmax first, as the released code does; the
            value is then finite always (at most 0.4621 for two classes). ``none`` is the plain divergence, infinite
            where the combination predicts a class that the complete input never does. The two can rank differently.

    Returns:
        Scalar without gradient, float64 on the CPU; at least 0 up to rounding, 0 for equal histograms.

    Raises:
        ShapeError: The shapes are not both (C,).

    Source:
        MMANet (CVPR 2023, arXiv:2304.08028), mining of the weak combination.
    """
    if combination.ndim != 1 or combination.shape != complete.shape:
        given = f"{tuple(combination.shape)} and {tuple(complete.shape)}"
        raise ShapeError(f"histogram_divergence: the histograms are {given}; both must be (C,)")
    p, q = _frequencies(combination), _frequencies(complete)
    if smoothing == "softmax":
        p, q = p.softmax(dim=0), q.softmax(dim=0)
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum()


def _frequencies(histogram: Tensor) -> Tensor:
    # Close histograms differ by 1e-4 nats and less, of which float32 keeps three digits.
    histogram = histogram.detach().cpu().double()
    total = histogram.sum()
    return histogram / torch.where(total > 0, total, torch.ones_like(total))
