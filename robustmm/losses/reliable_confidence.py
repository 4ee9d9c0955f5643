"""What READ minimises at test time: confidence where it is reliable, less of it where it is not, and balanced classes.

Source: READ (ICLR 2024), as its released code computes it.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from robustmm.errors import ShapeError
from robustmm.losses.precision import full_precision


def confidence_adaptation(probability: Tensor, *, gamma: float = math.exp(-1)) -> Tensor:
    """Mean of p (1 + log(gamma / p)) over rows, where p is the largest probability of a row.

    Minimising it raises p in rows where p > gamma and lowers it in the others. For the default gamma, 1 / e, it is
    -p log p; with two classes p >= 1/2, so that every row becomes more confident.

    Args:
        probability: Class probabilities, (R, K). Where several share the maximum they share the gradient.
        gamma: Probability above which a prediction counts as reliable, in (0, 1).

    Returns:
        Scalar, at most gamma; 0 without rows. At least float32.

    Raises:
        ShapeError: The probabilities are not (R, K).
    """
    _check("confidence_adaptation", probability)
    with full_precision(probability) as (probability,):
        largest = probability.amax(dim=1)
        return (largest * (1 + math.log(gamma) - largest.log())).sum() / max(len(largest), 1)


def class_balance(probability: Tensor, *, form: Literal["softmax_sum", "mean"] = "softmax_sum") -> Tensor:
    """Entropy of the classes that are predicted over all rows; subtract it from a loss to keep them balanced.

    Args:
        probability: Class probabilities, (R, K).
        form: ``mean`` takes the entropy of the mean of the rows. ``softmax_sum``, the released form, takes that of a
            softmax over the sum of the rows: weak for few rows and many classes, and stronger the more rows there are.

    Returns:
        Nats, in [0, log K]. A single row's own entropy in the ``mean`` form, against which `confidence_adaptation`
        works; ask for two rows or more. At least float32.

    Raises:
        ShapeError: The probabilities are not (R, K), or there is no row.
    """
    _check("class_balance", probability)
    if not len(probability):
        raise ShapeError("class_balance: probability has no rows; it must have at least one")
    with full_precision(probability) as (probability,):
        classes = probability.sum(dim=0).softmax(dim=0) if form == "softmax_sum" else probability.mean(dim=0)
        # The slope of the entropy at 0 is infinite, and that of a softmax 0: held off, their product is not NaN.
        entropy: Tensor = torch.special.entr(classes.clamp_min(torch.finfo(classes.dtype).tiny)).sum()
        return entropy


def _check(name: str, probability: Tensor) -> None:
    if probability.ndim != 2:
        raise ShapeError(f"{name}: probability is {tuple(probability.shape)}; it must be (R, K)")
