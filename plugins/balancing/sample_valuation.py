"""Sample-level modality valuation: train again, alone, what contributes little to a sample's prediction.

Source: Wei et al., Enhancing Multimodal Cooperation via Sample-level Modality Valuation, CVPR 2024, arXiv:2309.06255;
code GeWu-Lab/Valuate-and-Enhance-Multimodal-Cooperation.
"""

from __future__ import annotations

from collections.abc import Callable
from math import factorial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from robustmm import (
    Balancer,
    Component,
    EpochPlan,
    EpochView,
    Options,
    Task,
    combination_table,
    hookimpl,
    predicted_class,
)

#: A Shapley value below all of these gives three copies, and each that it reaches takes one away.
THRESHOLDS = (-0.1, 0.4, 1.0)
#: What a modality contributes where all of them share a right prediction evenly.
FAIR_SHARE = THRESHOLDS[-1]
#: Values this close to a threshold have reached it: sums of fractions are rounded.
ROUNDING = 1e-6

#: Where lists of positions begin, for a process without a share.
NO_INDEX = torch.zeros(0, dtype=torch.int64)

Level = Literal["sample", "modality"]


class SampleValuationOptions(Options):
    """Options of the valuation."""

    level: Level = Field(
        "sample",
        description="sample makes copies of each sample by its own values; modality makes copies of random samples by "
        "the mean values of a drawn part of the data, which is cheaper.",
    )
    warmup_epochs: int = Field(5, ge=0, description="Epochs of plain training before the first valuation.")
    part_ratio: float = Field(0.2, gt=0, le=1, description="At level modality, share of the data that is valued.")
    alpha: float = Field(1.0, ge=0, description="At level modality, factor of the share of copies; 0 makes none.")
    dense_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="For label maps, the share of right pixels from which a map counts as right; null takes the median "
        "of the complete predictions.",
    )


def shapley_values(correct: Tensor, observed: Tensor) -> Tensor:
    """What each modality contributes to a right prediction, of one sample a row.

    The benefit of a set S is |S| where the prediction from it is right, else 0. A set is cut to what the sample has, so
    that a modality that is not there gets 0 and the others get their values among themselves.

    Args:
        correct: (N, 2**M - 1) bool, by the combinations of `robustmm.combination_table`.
        observed: (N, M) bool.

    Returns:
        (N, M) float64; each row's sum is the number of its modalities where all of them together are right, else 0.

    Source:
        The metric of the paper, for any number of modalities; over those that are present it is this project's.
    """
    count = observed.shape[1]
    table = combination_table([str(column) for column in range(count)]).to(observed.device)  # (K, M)
    size = (observed[:, None] & table).sum(dim=2)  # (N, K)
    benefit = size.double() * correct
    place = {tuple(row): k for k, row in enumerate(table.tolist())}
    values = torch.zeros(observed.shape, dtype=torch.float64, device=observed.device)
    for combination, column in place.items():
        members = sum(combination)
        for player in range(count):
            if not combination[player]:
                continue
            rest = tuple(on and other != player for other, on in enumerate(combination))
            share = factorial(members - 1) * factorial(count - members) / factorial(count)
            without = benefit[:, place[rest]] if any(rest) else 0.0
            values[:, player] += share * (benefit[:, column] - without)
    return values


def number_of_copies(values: Tensor) -> Tensor:
    """Copies by Shapley value, int64: 0 from 1 on, 1 from 0.4, 2 from -0.1, else 3.

    Source:
        The released thresholds, for two modalities; 1 is a fair share for any number of them.
    """
    reached = torch.bucketize(values + ROUNDING, values.new_tensor(THRESHOLDS), right=True)
    return len(THRESHOLDS) - reached


def share_of_copies(mean_values: Tensor, alpha: float) -> tuple[int, float]:
    """Which modality is to be trained alone, and for which share of the data.

    Args:
        mean_values: (M,) mean Shapley values, NaN for a modality without a sample.
        alpha: At least 0.

    Returns:
        The column with the largest gap 1 - value, and alpha * 2/3 * (its gap - the mean of the others), 0 where there
        is no other. With two modalities that is the difference of their accuracies alone, times two thirds.

    Source:
        The released code for two modalities; the mean of the others is this project's rule for more.
    """
    known = ~mean_values.isnan()
    if known.sum() < 2:
        return 0, 0.0
    gap = (FAIR_SHARE - mean_values).masked_fill(~known, -torch.inf)
    column = int(gap.argmax())
    others = known.clone()
    others[column] = False
    return column, float(alpha * 2 / 3 * (gap[column] - gap[others].mean()))


class SampleValuation(Balancer):
    """Modalities that contribute little to a sample are trained on it again with all others withheld.

    Before each epoch behind the warm-up the model predicts every training sample from every combination of what it has,
    in evaluation mode and without augmentation. Each sample then comes once as it is, and once more for each copy
    (`number_of_copies`) with everything but one modality withheld. At level ``modality`` a part of the data is drawn
    first and valued, and the modality whose mean value is smallest gets copies of samples drawn with replacement
    (`share_of_copies`).

    A prediction from some modalities is the model's own way with missing ones; with zero features and concatenation it
    is that of the released code. Copies are made only of samples with two modalities or more, and keep only what the
    sample has. Epochs become up to 1 + 2 M times longer (5 for two modalities), and the learning rate follows the share
    of the epoch; compare methods by their updates. All 2**M - 1 combinations are predicted: many modalities are slow.

    Deviations: the released code values training pictures with random crops and flips, and at level modality all of
    them before it draws a part. For label maps, whose prediction is not right or wrong as a whole, a map counts as
    right where the share of its right pixels reaches the median over the maps of what the complete prediction reaches.

    Args:
        level, warmup_epochs, part_ratio, alpha, dense_threshold: See `SampleValuationOptions`.
    """

    def __init__(
        self,
        *,
        level: Level = "sample",
        warmup_epochs: int = 5,
        part_ratio: float = 0.2,
        alpha: float = 1.0,
        dense_threshold: float | None = None,
    ) -> None:
        self.by_sample = level == "sample"
        self.warmup_epochs = warmup_epochs
        self.part_ratio = part_ratio
        self.alpha = alpha
        self.dense_threshold = dense_threshold
        self._observed: Tensor | None = None  # (N, M) of the training part, once it has been asked for

    def on_epoch_start(self, epoch: EpochView) -> EpochPlan | None:
        """Value the samples, and add copies."""
        if len(epoch.modalities) == 1 or epoch.clock.epoch < max(self.warmup_epochs, 1):
            return None
        return self._by_sample(epoch) if self.by_sample else self._by_modality(epoch)

    def _by_sample(self, epoch: EpochView) -> EpochPlan | None:
        values, observed = self.value(epoch, torch.arange(epoch.samples))
        copies = number_of_copies(values).where(observed & _contested(observed), 0)  # (N, M)
        sample, column = copies.nonzero(as_tuple=True)
        times = copies[sample, column]
        return _with_copies(epoch.samples, sample.repeat_interleave(times), column.repeat_interleave(times), copies)

    def _by_modality(self, epoch: EpochView) -> EpochPlan | None:
        generator = epoch.generator("sample_valuation")
        drawn = torch.randint(epoch.samples, (max(int(self.part_ratio * epoch.samples), 1),), generator=generator)
        positions, place = drawn.unique(return_inverse=True)  # type: ignore[no-untyped-call]  # untyped in torch
        values, observed = self.value(epoch, positions)
        counted = (observed & _contested(observed))[place]  # (Z, M), as often as drawn
        means = values[place].where(counted, 0.0).sum(dim=0) / counted.sum(dim=0)  # 0 / 0 is NaN
        column, share = share_of_copies(means, self.alpha)
        everything = self.observed(epoch)
        usable = (everything & _contested(everything))[:, column].nonzero().squeeze(1)
        count = int(share * len(usable) + ROUNDING)
        if count == 0:
            return None
        chosen = usable[torch.randint(len(usable), (count,), generator=generator)]
        return _with_copies(epoch.samples, chosen, torch.full_like(chosen, column), everything)

    def value(self, epoch: EpochView, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Shapley values and what was observed, (N, M) each, of some positions in ascending order."""
        scores, observed = _gathered(epoch, positions)
        if epoch.method.task.dense:
            complete = scores[:, -1]  # the last combination is the whole
            wanted = complete.nanmedian() if self.dense_threshold is None else self.dense_threshold
            values = shapley_values(scores >= wanted, observed)
            return values.where(~complete.isnan()[:, None], FAIR_SHARE), observed  # a map without a label
        return shapley_values(scores >= 1, observed), observed

    def observed(self, epoch: EpochView) -> Tensor:
        """(N, M) bool: what the samples of the training part have; read once."""
        if self._observed is None:
            index, observed = [NO_INDEX], [torch.zeros(0, len(epoch.modalities), dtype=torch.bool)]
            for batch in epoch.batches():
                index.append(batch.index)
                observed.append(batch.observed)
            order = epoch.gather(torch.cat(index)).argsort()
            self._observed = epoch.gather(torch.cat(observed))[order]
        return self._observed


def _contested(observed: Tensor) -> Tensor:
    """(N, 1) bool: whether there is more than one modality."""
    return observed.sum(dim=1, keepdim=True) > 1


def _with_copies(samples: int, copied: Tensor, column: Tensor, like: Tensor) -> EpochPlan | None:
    """Every sample once, and copies that keep one modality; None without copies."""
    if not len(copied):
        return None
    alone = torch.eye(like.shape[1], dtype=torch.bool)[column]
    whole = torch.ones(samples, like.shape[1], dtype=torch.bool)
    return EpochPlan(torch.cat([torch.arange(samples), copied]), torch.cat([whole, alone]))


def _gathered(epoch: EpochView, positions: Tensor) -> tuple[Tensor, Tensor]:
    """What all processes find, in the order of the positions: (N, 2**M - 1) scores by combination, and observed (N, M).

    A score is the share of right rows, int8 where a sample is one row.
    """
    task, modalities = epoch.method.task, len(epoch.modalities)
    kind = torch.float32 if task.dense else torch.int8

    def share(logits: Tensor, target: Tensor) -> Tensor:
        return share_of_right_rows(task, logits, target)

    index, observed = [NO_INDEX], [torch.zeros(0, modalities, dtype=torch.bool)]
    scores = [torch.zeros(0, 2**modalities - 1, dtype=kind)]
    for batch, own in epoch.subset_scores(epoch.batches(positions), share):
        index.append(batch.index)
        observed.append(batch.observed)
        scores.append(own.to("cpu", kind))
    order = epoch.gather(torch.cat(index)).argsort()
    return epoch.gather(torch.cat(scores))[order], epoch.gather(torch.cat(observed))[order]


def share_of_right_rows(task: Task, logits: Tensor, target: Tensor) -> Tensor:
    """Share of rows (one, or the valid pixels) whose class is predicted, (B,); NaN without a row."""
    rows = task.rows(logits, target)
    right = (predicted_class(rows.logits) == rows.target).to(torch.float32)
    sums = right.new_zeros(2, len(target))
    sums[0].index_add_(0, rows.sample, right)
    sums[1].index_add_(0, rows.sample, torch.ones_like(right))
    return sums[0] / sums[1]


@hookimpl
def robustmm_register_balancers(register: Callable[[Component], None]) -> None:
    """Offer the strategy."""
    register(
        Component(
            name="sample_valuation",
            build=SampleValuation,
            options=SampleValuationOptions,
            summary="Train modalities alone on samples to whose prediction they contribute little.",
            source="Wei et al., CVPR 2024, arXiv:2309.06255; code GeWu-Lab/Valuate-and-Enhance-Multimodal-Cooperation",
            fidelity="code",
            requires=frozenset({"class_probability"}),
        )
    )
