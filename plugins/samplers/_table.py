"""Weights of combinations, as options give them, to a table that the draws take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from robustmm import RobustmmError, combination_name, combination_table, parse_combination, presence_of


def _some_weight(weights: dict[str, float]) -> dict[str, float]:
    if not sum(weights.values()) > 0:
        raise ValueError("at least one weight must be above 0")
    return weights


#: Combination, such as ``rgb+depth``, to its weight; they need not add up to 1.
Weights = Annotated[
    dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]], AfterValidator(_some_weight), Field(min_length=1)
]


def weight_table(weights: Mapping[str, float] | None, modalities: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Combinations and their weights.

    Args:
        weights: Combination -> weight; None means all combinations alike.
        modalities: In column order.

    Returns:
        (K, M) bool and (K,) float64.

    Raises:
        RobustmmError: an unknown modality, or one combination given twice in different order.
    """
    if weights is None:
        table = combination_table(modalities)
        return table, torch.ones(len(table), dtype=torch.float64)
    combinations = [parse_combination(text, modalities) for text in weights]
    for combination in combinations:
        if combinations.count(combination) > 1:
            raise RobustmmError(f"combination '{combination_name(combination)}' has two weights")
    table = torch.stack([presence_of(combination, modalities) for combination in combinations])
    return table, torch.tensor(list(weights.values()), dtype=torch.float64)
