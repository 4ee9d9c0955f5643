"""QMF: logits of every modality weighed by their energy, which is taught to follow how hard a sample has been."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from robustmm import (
    Batch,
    Blueprint,
    Clock,
    Component,
    Decision,
    DecisionMethod,
    LossTerm,
    Method,
    Options,
    Output,
    Task,
    confidence_ranking,
    full_precision,
    gather_equal,
    hookimpl,
    normalised_history,
)


class QMFOptions(Options):
    """Options of QMF."""

    confidence_scale: float = Field(0.1, gt=0, description="Confidence is this times the log-sum-exp of the logits.")
    detach_confidence: bool = Field(
        False,
        description="Let no gradient of the fused loss into the confidence, as in the released image-text code; then "
        "the ranking alone trains it.",
    )
    unimodal_weight: float = Field(1.0, ge=0, description="Weight of the sum of the modalities' own losses.")
    rank_weight: float = Field(
        0.1, ge=0, description="Weight of the ranking; 0 is without. Released: 0.1 (NYUD2), 1 (SUN RGB-D, image-text)."
    )
    margin: Literal["paper", "code"] = Field(
        "paper",
        description="paper: confidences must differ by at least the difference of the histories; code: the released "
        "sign, which tolerates wrong orders by less than it.",
    )
    history: Literal["mean", "sum"] = Field(
        "mean",
        description="What a sample's losses are ranked by: mean counts one that was shown less often alike; sum is the "
        "released form. Equal where all were shown equally often.",
    )


def energy_confidence(logits: Tensor, scale: float) -> Tensor:
    """``scale * logsumexp``: (B, M, C, ...) -> (B, M, ...), of any size. At least float32."""
    with full_precision(logits) as (logits,):
        return scale * logits.logsumexp(dim=2)


def weighted_sum(logits: Tensor, confidence: Tensor, presence: Tensor) -> Tensor:
    """Sum over the present modalities of confidence (B, M, ...) times logits (B, M, C, ...): (B, C, ...)."""
    shown = presence.view(*presence.shape, *[1] * (confidence.dim() - 2))
    with full_precision(logits, confidence) as (logits, confidence):
        return (logits * confidence.where(shown, torch.zeros_like(confidence)).unsqueeze(2)).sum(dim=1)


def sample_confidence(task: Task, confidence: Tensor, target: Tensor) -> Tensor:
    """Mean confidence over a sample's rows, (B, M, ...) -> (B, M): itself, or the mean over a map's valid pixels."""
    rows = task.rows(confidence, target)
    count = rows.logits.new_zeros(len(confidence)).index_add(0, rows.sample, torch.ones_like(rows.logits[:, 0]))
    summed = rows.logits.new_zeros(confidence.shape[:2]).index_add(0, rows.sample, rows.logits)
    return summed / count.clamp_min(1)[:, None]


class LossHistory(nn.Module):
    """Losses of every training sample and modality so far; buffers, so that they travel with a checkpoint.

    Each process adds what all of them have seen, so that all hold the same.

    Args:
        samples: Size of the training part.
        modalities: M.
    """

    losses: Tensor
    shown: Tensor

    def __init__(self, samples: int, modalities: int) -> None:
        super().__init__()
        self.register_buffer("losses", torch.zeros(samples, modalities))
        self.register_buffer("shown", torch.zeros(samples, modalities))

    @torch.no_grad()
    def add(self, index: Tensor, losses: Tensor, presence: Tensor) -> None:
        """Take in a batch.

        Args:
            index: (B,) places in the training part; one may stand there several times.
            losses: (B, M).
            presence: (B, M) bool; what is absent adds nothing.
        """
        added = torch.cat([losses.float().masked_fill(~presence, 0.0), presence.float()], dim=1)
        places, added = gather_equal(index.to(self.losses.device)), gather_equal(added)
        losses, shown = added.chunk(2, dim=1)
        self.losses.index_add_(0, places, losses)
        self.shown.index_add_(0, places, shown)

    @torch.no_grad()
    def normalised(self, index: Tensor, form: Literal["mean", "sum"]) -> tuple[Tensor, Tensor]:
        """Histories of some samples, each modality's moved to [0, 1] over all samples that showed it.

        Returns:
            (B, M) float32, and (B, M) bool: which of them have a history at all.
        """
        known = self.shown > 0
        values = self.losses / self.shown.clamp_min(1) if form == "mean" else self.losses
        # Of samples never seen nothing is known: at the mean of the others they move neither the least nor the largest.
        middle = (values * known).sum(dim=0) / known.sum(dim=0).clamp_min(1)
        filled = values.where(known, middle)
        columns = [normalised_history(column) for column in filled.unbind(dim=1)]
        places = index.to(self.losses.device)
        return torch.stack(columns, dim=1)[places], known[places]


class QMF(DecisionMethod):
    """Logits of one head per modality, each times its confidence, summed; and a ranking of confidences.

    The confidence of a modality is 0.1 times the log-sum-exp of its logits, the negative of their free energy. It is
    not normalised over modalities, and moves with a constant that is added to the logits; where all logits are far
    below 0 it is negative and turns the order of the classes round.

    Terms: ``task`` of the fused logits, ``unimodal/<modality>`` over the samples that show it, and ``rank``, the sum
    over modalities of `confidence_ranking`: of neighbours in the batch the one with the larger history of losses must
    be less confident. A sample takes part in a modality's ranking if it shows it and has shown it before; so the first
    step has none, where the released RGB-D code divides 0 by 0. The history grows in training alone.

    In dense prediction a confidence weighs each pixel; a sample's history is its mean loss over valid pixels, and its
    mean confidence is ranked.

    In an output, ``extras["confidence"]`` is (B, M, ...); it means nothing where the modality is absent.

    Source:
        QMF (ICML 2023, arXiv:2306.02050), code QingyangZhang/QMF. The margin of the released code has the wrong sign:
        see ``margin``. Missing modalities, which it does not know, weigh 0 and have no loss, history or pair.

    Args:
        blueprint: See `Blueprint`; it tells the number of training samples.
        confidence_scale, detach_confidence, unimodal_weight, rank_weight, margin, history: See `QMFOptions`.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        *,
        confidence_scale: float = 0.1,
        detach_confidence: bool = False,
        unimodal_weight: float = 1.0,
        rank_weight: float = 0.1,
        margin: Literal["paper", "code"] = "paper",
        history: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__(blueprint)
        self.confidence_scale, self.detach_confidence = confidence_scale, detach_confidence
        self.unimodal_weight, self.rank_weight = unimodal_weight, rank_weight
        self.margin: Literal["paper", "code"] = margin
        self.history_form: Literal["mean", "sum"] = history
        self.history = LossHistory(blueprint.samples, len(self.modalities)) if rank_weight > 0 else None

    def decide(self, opinions: Tensor, presence: Tensor) -> Decision:
        """See `DecisionMethod.decide`."""
        confidence = energy_confidence(opinions, self.confidence_scale)
        weight = confidence.detach() if self.detach_confidence else confidence
        return Decision(weighted_sum(opinions, weight, presence), {"confidence": confidence})

    def losses(self, output: Output, batch: Batch, clock: Clock) -> dict[str, LossTerm]:
        """See `Method.losses`; in training mode the history grows by this batch, after it was asked."""
        terms = super().losses(output, batch, clock)
        if self.unimodal_weight > 0:
            for name, loss in zip(self.modalities, self.unimodal_losses(output, batch), strict=True):
                terms[f"unimodal/{name}"] = LossTerm(self.unimodal_weight * loss, "auxiliary")
        if self.history is not None and self.training:
            terms["rank"] = LossTerm(self.rank_weight * self._ranking(self.history, output, batch), "regulariser")
            self.history.add(batch.index, self._sample_losses(output, batch), output.presence)
        return terms

    def _ranking(self, history: LossHistory, output: Output, batch: Batch) -> Tensor:
        confidence = sample_confidence(self.task, output.extras["confidence"], batch.target)
        past, known = history.normalised(batch.index, self.history_form)
        taking_part = output.presence & known
        columns = zip(confidence.unbind(dim=1), past.unbind(dim=1), taking_part.unbind(dim=1), strict=True)
        losses = [confidence_ranking(own, before, form=self.margin, presence=part) for own, before, part in columns]
        return torch.stack(losses).sum()

    @torch.no_grad()
    def _sample_losses(self, output: Output, batch: Batch) -> Tensor:
        """The task's loss of each sample by each modality, (B, M)."""
        opinions = output.extras["opinions"].unbind(dim=1)
        return torch.stack([self.task.sample_losses(own, batch.target) for own in opinions], dim=1)

    def deployable(self) -> Method:
        """The same without the history, which shares every other part."""
        deployed = copy.copy(super().deployable())
        deployed._modules = {**deployed._modules, "history": None}
        return deployed


@hookimpl
def robustmm_register_methods(register: Callable[[Component], None]) -> None:
    """Offer the method."""
    register(
        Component(
            name="qmf",
            build=QMF,
            options=QMFOptions,
            summary="Sum of logits weighed by their energy, which is ranked by how hard samples have been.",
            source="Zhang et al., ICML 2023, arXiv:2306.02050; code QingyangZhang/QMF",
            fidelity="code",
            requires=frozenset({"class_probability", "separate_encoders"}),
            conflicts=frozenset({"stands_in"}),
            provides=frozenset({"no_fusion"}),
        )
    )
