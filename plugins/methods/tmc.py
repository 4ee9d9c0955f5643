"""TMC: every modality gives evidence for classes, and Dempster's rule merges it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from robustmm import (
    Batch,
    Blueprint,
    Clock,
    Component,
    Decision,
    DecisionMethod,
    LossTerm,
    Options,
    Output,
    belief_conflict,
    combine_evidence,
    dirichlet_uncertainty,
    evidential_loss,
    full_precision,
    hookimpl,
)

Activation = Literal["softplus", "relu", "exp"]
#: exp(10) = 22026 pieces of evidence for a class; without a bound a large logit would overflow in the product.
LARGEST_EXPONENT = 10.0


class TMCOptions(Options):
    """Options of TMC."""

    activation: Activation = Field(
        "softplus",
        description="From a head's outputs to evidence. relu has no gradient where it gives no evidence; exp is cut "
        "off at exp(10).",
    )
    anneal_epochs: int = Field(
        50,
        ge=1,
        description="Epochs over which the penalty on evidence for wrong classes rises to its full weight; the "
        "released code has 50 of 500.",
    )
    fused_weight: float = Field(1.0, gt=0, description="Weight of the merged opinion's loss.")
    view_weight: float = Field(1.0, ge=0, description="Weight of the sum of the modalities' own losses; 0 is without.")


def to_evidence(outputs: Tensor, activation: Activation) -> Tensor:
    """Evidence, at least 0, from a head's outputs of any size, same shape. At least float32."""
    with full_precision(outputs) as (outputs,):
        if activation == "softplus":
            return F.softplus(outputs)
        if activation == "relu":
            return outputs.relu()
        return outputs.clamp_max(LARGEST_EXPONENT).exp()


def annealed(epoch: int, anneal_epochs: int) -> float:
    """Weight of the penalty in an epoch that is counted from 0: 1 / T in the first, 1 from epoch T - 1 on."""
    return min(1.0, (epoch + 1) / anneal_epochs)


class TMC(DecisionMethod):
    """Evidence of one head per modality, merged by the reduced Dempster rule; each opinion has an evidential loss.

    An absent modality has evidence 0, the rule's neutral element: the merged opinion is exactly that of the present
    ones. The logits are log(e + 1), so that their softmax is the expected probability of each class; their argmax is
    that of the evidence.

    Terms: ``task`` of the merged opinion, and ``evidence/<modality>`` of each modality's own over the samples that show
    it. The task's own loss, with its label smoothing, class weights or Dice, has no part in them.

    Extras of an output, for one prediction per sample or per pixel:
        evidence: (B, M, C, ...), 0 where the modality is absent.
        fused_evidence: (B, C, ...).
        uncertainty: (B, ...) in (0, 1], C / (sum of the evidence + C). It never exceeds the smallest one of a modality,
            not even where they contradict each other: that is what ``conflict`` tells.
        conflict: (B, ...) in [0, 1): mass that the rule throws away.

    Source:
        TMC (ICLR 2021, arXiv:2102.02051), code hanmenghan/TMC. Deviations: the rule in its product form, the same
        numbers without a C x C table; missing modalities, which the released code does not know; networks and recipe
        are the configuration's.

    Args:
        blueprint: See `Blueprint`.
        activation, anneal_epochs, fused_weight, view_weight: See `TMCOptions`.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        *,
        activation: Activation = "softplus",
        anneal_epochs: int = 50,
        fused_weight: float = 1.0,
        view_weight: float = 1.0,
    ) -> None:
        super().__init__(blueprint)
        self.activation: Activation = activation
        self.anneal_epochs = anneal_epochs
        self.fused_weight, self.view_weight = fused_weight, view_weight

    def decide(self, opinions: Tensor, presence: Tensor) -> Decision:
        """See `DecisionMethod.decide`."""
        evidence = to_evidence(opinions, self.activation)
        shown = presence.view(*presence.shape, *[1] * (evidence.dim() - 2))
        evidence = evidence.where(shown, torch.zeros_like(evidence))
        views = evidence.unbind(dim=1)
        fused = combine_evidence(views)
        extras = {
            "evidence": evidence,
            "fused_evidence": fused,
            "uncertainty": dirichlet_uncertainty(fused),
            "conflict": belief_conflict(views),
        }
        return Decision(fused.log1p(), extras)

    def uncertainty(self, logits: Tensor) -> Tensor:
        """Vacuity of the merged opinion, ``C / sum(evidence + 1)``, in (0, 1]: logits are ``log(evidence + 1)``."""
        return logits.shape[1] / logits.float().exp().sum(dim=1)

    def losses(self, output: Output, batch: Batch, clock: Clock) -> dict[str, LossTerm]:
        """See `Method.losses`; each term is the mean over samples or valid pixels."""
        fused, *views = self._opinion_losses(output, batch, annealed(clock.epoch, self.anneal_epochs))
        terms = {"task": LossTerm(self.fused_weight * fused, "task")}
        if self.view_weight > 0:
            for name, loss in zip(self.modalities, views, strict=True):
                terms[f"evidence/{name}"] = LossTerm(self.view_weight * loss, "auxiliary")
        return terms

    def _opinion_losses(self, output: Output, batch: Batch, kl_weight: float) -> tuple[Tensor, ...]:
        """The loss of the merged opinion and of every view, scalars."""
        fused, views = output.extras["fused_evidence"], output.extras["evidence"]
        opinions = torch.cat([fused[:, None], views], dim=1)  # (B, 1 + M, C, ...)
        rows = self.task.rows(opinions.flatten(1, 2), batch.target)  # once, since finding valid pixels may wait
        by_opinion = rows.logits.view(len(rows.target), *opinions.shape[1:3])  # (R, 1 + M, C)
        count = by_opinion.shape[1]
        losses = evidential_loss(by_opinion.flatten(0, 1), rows.target.repeat_interleave(count), kl_weight)
        everywhere = output.presence.new_ones(len(output.presence), 1)
        kept = torch.cat([everywhere, output.presence], dim=1)[rows.sample]  # (R, 1 + M)
        summed = losses.view(-1, count).masked_fill(~kept, 0.0).sum(dim=0)
        return (summed / kept.sum(dim=0).clamp_min(1)).unbind()


@hookimpl
def robustmm_register_methods(register: Callable[[Component], None]) -> None:
    """Offer the method."""
    register(
        Component(
            name="tmc",
            build=TMC,
            options=TMCOptions,
            summary="Evidence for classes from one network per modality, merged by Dempster's rule with uncertainty.",
            source="Han et al., ICLR 2021, arXiv:2102.02051; code hanmenghan/TMC",
            fidelity="code",
            requires=frozenset({"class_probability", "separate_encoders"}),
            conflicts=frozenset({"stands_in"}),
            provides=frozenset({"no_fusion", "own_loss"}),
        )
    )
