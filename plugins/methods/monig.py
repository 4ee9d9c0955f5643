"""MoNIG: every modality predicts with two uncertainties, and the sum of their distributions is the prediction."""

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
    Decision,
    DecisionMethod,
    LossTerm,
    NormalInverseGamma,
    Options,
    Output,
    RegressionTask,
    StudentT,
    combine_nig,
    hookimpl,
    nig_nll,
    nig_regulariser,
    pack_student_t,
)

Evidence = Literal["code", "paper"]
#: Mean, count, shape and scale of a normal-inverse-gamma distribution.
PARAMETERS = 4
#: The same where nothing is shown, in standardised units: a Student-t of location 0, scale 1, 4 degrees of freedom.
NOTHING_KNOWN = (0.0, 1.0, 2.0, 1.0)


class MoNIGOptions(Options):
    """Options of MoNIG."""

    risk_weight: float = Field(
        0.01, ge=0, description="Weight, within each loss, of the evidence that stands behind a wrong prediction."
    )
    evidence: Evidence = Field(
        "code",
        description="What counts as evidence there: 2 count + shape, as in the released code and in deep evidential "
        "regression, or count + 2 shape.",
    )
    fused_weight: float = Field(1.0, gt=0, description="Weight of the loss of the summed distribution.")
    unimodal_weight: float = Field(1.0, ge=0, description="Weight of the sum of the modalities' own losses.")


def distributions(outputs: Tensor) -> list[NormalInverseGamma]:
    """(B, M, 4T), for each modality T means, counts, shapes and scales side by side -> M distributions, each (B, T)."""
    return [NormalInverseGamma.from_raw(own.view(own.shape[0], PARAMETERS, -1)) for own in outputs.unbind(dim=1)]


def filled(distribution: NormalInverseGamma, known: Tensor) -> NormalInverseGamma:
    """The distribution, and in rows that are not ``known`` (B,) a wide one around the mean of the training targets."""
    on = known[:, None]
    parts = zip(distribution, NOTHING_KNOWN, strict=True)
    return NormalInverseGamma(*(own.where(on, torch.full_like(own, value)) for own, value in parts))


def predictive(distribution: NormalInverseGamma) -> Tensor:
    """The Student-t distribution of the target as logits of `RegressionTask`: fields (B, T) -> (B, 3T)."""
    degrees, location, width = distribution.student_t()
    return pack_student_t(StudentT(location, width.log(), degrees.log()))


class MoNIG(DecisionMethod):
    """A normal-inverse-gamma distribution per modality and target, summed over the present ones.

    Heads give 4 numbers per target quantity: mean, count, shape and scale. The sum weighs means by their counts and
    adds their disagreement to the scale; an absent modality is left out of it. The prediction is the Student-t
    distribution that the sum implies.

    Terms: ``task`` of the sum, and ``unimodal/<modality>`` over the samples that show it. Each is a mean, over samples
    and targets, of the negative log-likelihood plus ``risk_weight`` times the evidence behind an error. The task's own
    loss has no part in them. Everything is in standardised units, so that one weight fits targets of any unit.

    Extras of an output, in standardised units (variances: squared):
        distribution: Mean, count, shape and scale of the sum, (B, 4, T).
        aleatoric: Expected variance of the noise, (B, T).
        epistemic: Variance of the mean, (B, T).

    Source:
        MoNIG (NeurIPS 2021, arXiv:2111.08456), code MaHuanAAA/MoNIG, whose training weighs means by their counts; a
        summation that weighs otherwise stands there unused. Deviations: counts and scales are at least 1e-6; missing
        modalities, which it does not know; no pseudo-modality of concatenated features, which its own script cannot
        build.

    Args:
        blueprint: See `Blueprint`.
        risk_weight, evidence, fused_weight, unimodal_weight: See `MoNIGOptions`.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        *,
        risk_weight: float = 0.01,
        evidence: Evidence = "code",
        fused_weight: float = 1.0,
        unimodal_weight: float = 1.0,
    ) -> None:
        super().__init__(blueprint, outputs=PARAMETERS * blueprint.task.num_outputs)
        self.risk_weight = risk_weight
        self.evidence: Evidence = evidence
        self.fused_weight, self.unimodal_weight = fused_weight, unimodal_weight

    def decide(self, opinions: Tensor, presence: Tensor) -> Decision:
        """See `DecisionMethod.decide`."""
        fused = filled(combine_nig(distributions(opinions), presence), presence.any(dim=1))
        extras = {
            "distribution": torch.stack(fused, dim=1),
            "aleatoric": fused.aleatoric,
            "epistemic": fused.epistemic,
        }
        return Decision(predictive(fused), extras)

    def losses(self, output: Output, batch: Batch, clock: Clock) -> dict[str, LossTerm]:
        """See `Method.losses`."""
        assert isinstance(self.task, RegressionTask)  # the component requires it
        target = self.task.standardised(batch.target)
        fused = NormalInverseGamma(*output.extras["distribution"].unbind(dim=1))
        terms = {"task": LossTerm(self.fused_weight * self._losses(fused, target).mean(), "task")}
        if self.unimodal_weight > 0:
            views = distributions(output.extras["opinions"])
            for name, own, shown in zip(self.modalities, views, output.presence.unbind(dim=1), strict=True):
                losses = self._losses(own, target).masked_fill(~shown[:, None], 0.0)
                loss = losses.mean(dim=1).sum() / shown.sum().clamp_min(1)
                terms[f"unimodal/{name}"] = LossTerm(self.unimodal_weight * loss, "auxiliary")
        return terms

    def _losses(self, distribution: NormalInverseGamma, target: Tensor) -> Tensor:
        """One value per sample and target, (B, T)."""
        wrong = nig_regulariser(distribution, target, form=self.evidence)
        return nig_nll(distribution, target) + self.risk_weight * wrong


@hookimpl
def robustmm_register_methods(register: Callable[[Component], None]) -> None:
    """Offer the method."""
    register(
        Component(
            name="monig",
            build=MoNIG,
            options=MoNIGOptions,
            summary="Regression with noise and ignorance told apart: sum of one distribution per modality.",
            source="Ma et al., NeurIPS 2021, arXiv:2111.08456; code MaHuanAAA/MoNIG",
            fidelity="code",
            requires=frozenset({"task:regression", "separate_encoders"}),
            conflicts=frozenset({"stands_in"}),
            provides=frozenset({"no_fusion", "own_loss"}),
        )
    )
