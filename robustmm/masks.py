"""Combinations of modalities, and masks that show one combination per sample.

Every drawing function takes ``observed`` (B, M) bool and a CPU generator, returns ``presence`` (B, M) bool with
``presence <= observed``, and leaves at least one modality to each sample that has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations as choose

import torch
from torch import Tensor

from robustmm.errors import RobustmmError, did_you_mean
from robustmm.types import Combination

#: A share this close below a whole number is that number.
ROUNDING = 1e-9
#: Summaries over combinations, which stand beside them in scores: ``mean/accuracy``, ``rgb+depth/accuracy``.
AGGREGATES = ("mean", "worst", "complete", "drop")


def all_combinations(modalities: Sequence[str]) -> list[Combination]:
    """The 2**M - 1 non-empty combinations, small ones first, each in column order."""
    return [combo for size in range(1, len(modalities) + 1) for combo in choose(modalities, size)]


def combination_name(combination: Combination) -> str:
    """``("rgb", "depth")`` -> ``"rgb+depth"``."""
    return "+".join(combination)


def parse_combination(text: str, modalities: Sequence[str]) -> Combination:
    """``"depth+rgb"`` -> ``("rgb", "depth")`` in column order.

    Raises:
        RobustmmError: a name is not one of ``modalities``, stands twice, or nothing is named.
    """
    names = [part.strip() for part in text.split("+")]
    for name in names:
        if name not in modalities:
            raise RobustmmError(
                f"combination '{text}': no modality '{name}'{did_you_mean(name, modalities)} "
                f"(modalities: {', '.join(modalities)})"
            )
    if len(set(names)) != len(names):
        raise RobustmmError(f"combination '{text}': a modality stands twice")
    return tuple(name for name in modalities if name in names)


def presence_of(combination: Combination, modalities: Sequence[str]) -> Tensor:
    """(M,) bool: which columns belong to the combination."""
    return torch.tensor([name in combination for name in modalities])


def combination_table(modalities: Sequence[str]) -> Tensor:
    """(2**M - 1, M) bool in the order of `all_combinations`."""
    return torch.stack([presence_of(combo, modalities) for combo in all_combinations(modalities)])


def shown_combinations(presence: Tensor, modalities: Sequence[str]) -> list[str]:
    """The distinct combinations in a mask (B, M), by name, for messages."""
    rows = torch.unique(presence.cpu(), dim=0)
    return [combination_name(tuple(n for n, on in zip(modalities, row, strict=True) if on)) for row in rows.tolist()]


def keep_one(presence: Tensor, observed: Tensor, generator: torch.Generator) -> Tensor:
    """Give each sample that lost everything one of its observed modalities back, drawn uniformly. All (B, M) bool."""
    score = torch.rand(observed.shape, generator=generator).masked_fill(~observed, -1.0)
    rescued = torch.zeros_like(observed).scatter_(1, score.argmax(dim=1, keepdim=True), True) & observed
    return torch.where(presence.any(dim=1, keepdim=True), presence, rescued)


def draw_uniform(observed: Tensor, generator: torch.Generator) -> Tensor:
    """Each sample draws one of the non-empty subsets of what it has, all equally likely.

    Source:
        MMANet and DMRNet (2**M - 1 subsets, independent per sample); equal to Bernoulli(1/2) per modality given that
        not everything is missing.
    """
    rank = observed.long().cumsum(dim=1) - 1  # (B, M) place of a modality among the sample's own
    subsets = (1 << observed.sum(dim=1)) - 1  # (B,) number of non-empty subsets, 0 where nothing is observed
    draw = torch.rand(len(observed), generator=generator, dtype=torch.float64)
    code = 1 + (draw * subsets).long()  # (B,) in 1..subsets: the subset's bits
    return observed & ((code[:, None] >> rank.clamp_min(0)) & 1).bool()


def draw_bernoulli(observed: Tensor, keep: Tensor, generator: torch.Generator) -> Tensor:
    """Each modality stays with probability ``keep`` (M,), independently; a sample that lost all gets one back."""
    presence = observed & (torch.rand(observed.shape, generator=generator) < keep)
    return keep_one(presence, observed, generator)


def draw_cardinality(observed: Tensor, generator: torch.Generator) -> Tensor:
    """Draw how many modalities stay, uniformly in 1..available, then which, uniformly.

    Source:
        U-HVED and ShaSpec; P(present) = (M + 1) / (2 M).
    """
    available = observed.sum(dim=1)  # (B,)
    size = 1 + (torch.rand(len(observed), generator=generator) * available).long()
    score = torch.rand(observed.shape, generator=generator).masked_fill(~observed, 2.0)
    place = score.argsort(dim=1).argsort(dim=1)  # (B, M) rank of each modality in a random order, absent ones last
    return observed & (place < size[:, None])


def draw_from(table: Tensor, weights: Tensor, observed: Tensor, generator: torch.Generator) -> Tensor:
    """Each sample draws a row of ``table`` (K, M) bool with probability proportional to ``weights`` (K,).

    What a sample does not have is taken out of its row; a sample left with nothing gets one modality back.
    """
    rows = torch.multinomial(weights, len(observed), replacement=True, generator=generator)
    return keep_one(observed & table[rows], observed, generator)


def draw_for_batch(table: Tensor, weights: Tensor, observed: Tensor, generator: torch.Generator) -> Tensor:
    """The whole batch draws one row of ``table`` (K, M) bool with probability proportional to ``weights`` (K,).

    What a sample does not have is taken out of its row; a sample left with nothing gets one modality back.
    """
    row = torch.multinomial(weights, 1, generator=generator)
    return keep_one(observed & table[row], observed, generator)


def draw_stratified(table: Tensor, weights: Tensor, observed: Tensor, generator: torch.Generator) -> Tensor:
    """Fill the batch with exact shares of the rows of ``table`` (K, M), in random order.

    Row k stands floor(B w_k) times, w normalised; the places left go to rows drawn without repetition with
    probability proportional to the fractions left over, so that the expected share is exact.
    """
    size = len(observed)
    share = weights.double() * size / weights.double().sum()  # (K,) expected count
    count = (share + ROUNDING).floor().long()
    left = size - int(count.sum())
    if left:
        count[_systematic((share - count).clamp_min(0), left, generator)] += 1
    rows = torch.repeat_interleave(torch.arange(len(table)), count)
    rows = rows[torch.randperm(size, generator=generator)]
    return keep_one(observed & table[rows], observed, generator)


def _systematic(fraction: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` distinct rows so that row k comes with probability ``fraction`` (K,), which sums to ``count``."""
    order = torch.randperm(len(fraction), generator=generator)
    edges = fraction[order].cumsum(0) * (count / fraction.sum())  # rounding must not lose the last place
    points = torch.arange(count, dtype=torch.float64) + torch.rand(1, generator=generator, dtype=torch.float64)
    return order[torch.searchsorted(edges, points, right=True).clamp_max(len(fraction) - 1)]


def where_present(feature: Tensor, present: Tensor, otherwise: Tensor) -> Tensor:
    """``feature`` in present rows, ``otherwise`` (broadcast) in absent ones, whose gradient is exactly 0.

    Nothing of an absent row reaches the result, NaN included. Backwards a zero gradient arrives there, and layers that
    ran on a NaN turn it into NaN (0 * NaN): rows that are encoded must be finite, as collated zeros are.
    """
    return feature.where(present.view(-1, *[1] * (feature.dim() - 1)), otherwise)


class CombinationSampler:
    """Draws what each training sample shows. A sampler plugin sub-classes this.

    Calls must depend on ``observed`` and ``generator`` alone, so that a resumed run draws what an uninterrupted one
    would have drawn.
    """

    def __call__(self, observed: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``presence`` (B, M) bool for ``observed`` (B, M) bool; as it stands, everything that is there."""
        return observed
