"""UME: networks of one modality, trained apart; the mean of what they predict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from robustmm import (
    Batch,
    Blueprint,
    Clock,
    Component,
    DecisionMethod,
    LossTerm,
    Options,
    Output,
    full_precision,
    hookimpl,
    mean_over_present,
)

Average = Literal["probability", "logit"]


class UMEOptions(Options):
    """Options of UME."""

    average: Average = Field(
        "probability",
        description="What is averaged over the present modalities: softmax probabilities, or logits. Predictions of "
        "regression are averaged either way.",
    )


def log_mean_probability(logits: Tensor, presence: Tensor) -> Tensor:
    """Log of the mean softmax probability of the present modalities: (B, M, C, ...) -> (B, C, ...).

    Rows without any modality are uniform. At least float32.
    """
    with full_precision(logits) as (logits,):
        shown = presence.view(*presence.shape, *[1] * (logits.dim() - 2))
        # A row of nothing counts all of its modalities: a log-sum-exp over none has no finite gradient.
        counted = shown | ~shown.any(dim=1, keepdim=True)
        log_probability = logits.log_softmax(dim=2).masked_fill(~counted, -torch.inf)
        return log_probability.logsumexp(dim=1) - counted.sum(dim=1).to(logits.dtype).log()


class UME(DecisionMethod):
    """One network per modality, each trained by its own loss alone; in use the mean of the present ones.

    The networks have no parameter in common, so that training all of them at once on the sum of their losses is what
    training them one after the other would be, with these exceptions: one epoch is selected for all of them together,
    by the ensemble's score; ``train.clip_norm`` bounds the norm of all gradients together; and a loss is a mean over
    those samples of a batch that show the modality, where a run of its own would fill its batches with such samples.

    Terms: ``unimodal/<modality>``, each a task term; the mean itself has no loss.

    Source:
        UME (ICML 2023, arXiv:2305.01233). No code was released. Whether probabilities or logits are averaged could not
        be read: see ``average``.

    Args:
        blueprint: See `Blueprint`.
        average: See `UMEOptions`.
    """

    def __init__(self, blueprint: Blueprint, *, average: Average = "probability") -> None:
        super().__init__(blueprint)
        self.average: Average = average

    def combine(self, opinions: Tensor, presence: Tensor) -> Tensor:
        """Log of the mean probability, whose softmax it is; or the mean of logits or of predicted quantities."""
        if self.average == "logit" or self.task.continuous:
            return mean_over_present(opinions, presence)
        return log_mean_probability(opinions, presence)

    def losses(self, output: Output, batch: Batch, clock: Clock) -> dict[str, LossTerm]:
        """See `Method.losses`."""
        losses = zip(self.modalities, self.unimodal_losses(output, batch), strict=True)
        return {f"unimodal/{name}": LossTerm(loss, "task") for name, loss in losses}


@hookimpl
def robustmm_register_methods(register: Callable[[Component], None]) -> None:
    """Offer the method."""
    register(
        Component(
            name="ume",
            build=UME,
            options=UMEOptions,
            summary="Mean prediction of one network per modality, each trained by its own loss alone.",
            source="Du et al., ICML 2023, arXiv:2305.01233; no code released",
            fidelity="part",
            requires=frozenset({"separate_encoders"}),
            conflicts=frozenset({"stands_in"}),
            provides=frozenset({"no_fusion", "own_loss"}),
        )
    )
