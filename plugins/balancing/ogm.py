"""OGM: shrink the gradients of the encoder whose modality leads.

Source: Peng et al., Balanced Multimodal Learning via On-the-fly Gradient Modulation, CVPR 2022, arXiv:2203.15332; code
GeWu-Lab/OGM-GE_CVPR2022.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from robustmm import Balancer, Component, Options, StepView, hookimpl

#: A ratio's smallest denominator; the lead is then total, and the coefficient 0.
SMALLEST_SCORE = 1e-12
#: Relative lead below which scores count as equal: sums of equal scores differ by rounding.
SMALLEST_LEAD = 1e-6

ComparedRows = Literal["complete", "present"]
ModulatedParameters = Literal["kernels", "convolutions"]


class OGMOptions(Options):
    """Options of OGM and OGM-GE."""

    alpha: float = Field(
        0.8,
        ge=0,
        description="Strength of the damping; the code has no default. Published: 0.8 (CREMA-D, Kinetics-Sounds), 0.1 "
        "(VGGSound). 0 leaves every gradient as it is.",
    )
    first_epoch: int = Field(0, ge=0, description="First epoch with modulation.")
    last_epoch: int = Field(50, ge=0, description="Last epoch with modulation, included.")
    rows: ComparedRows = Field(
        "complete",
        description="Rows on which modalities are compared: those that show all of them, or for each modality those "
        "that show it. complete compares like with like; under modality dropout with many modalities few rows do.",
    )
    parameters: ModulatedParameters = Field(
        "kernels",
        description="Encoder weights that are modulated: kernels with at least two axes, or only those with four, as "
        "released. Equal for convolutional image encoders; biases and normalisation stay untouched in both.",
    )

    @model_validator(mode="after")
    def _epochs_in_order(self) -> OGMOptions:
        if self.first_epoch > self.last_epoch:
            raise ValueError(f"first_epoch {self.first_epoch} lies behind last_epoch {self.last_epoch}")
        return self


def leading_ratio(score: Tensor) -> Tensor:
    """By how much each modality leads: rho_u = s_u / mean of the other present scores where that is above 1, else 1.

    Args:
        score: (M,), at least 0, NaN for a modality without one.

    Returns:
        (M,) at least 1; all 1 unless two modalities have a score, and for equal ones.

    Source:
        OGM-GE (CVPR 2022) for two modalities; the mean of the others is this project's rule for more.
    """
    present = ~score.isnan()
    known = score.nan_to_num()
    others = (known.sum() - known) / (present.sum() - 1).clamp_min(1)
    ratio = known / others.clamp_min(SMALLEST_SCORE)
    leads = present & (ratio > 1 + SMALLEST_LEAD) & (present.sum() > 1)
    return ratio.where(leads, 1.0)


def leading_coefficient(score: Tensor, alpha: float) -> Tensor:
    """Gradient factor of each modality: below 1 for those that lead, 1 for the others.

    The factor is 1 - tanh(alpha rho_u) where rho_u of `leading_ratio` is above 1. It jumps from 1 to 1 - tanh(alpha)
    there. Equal scores damp nobody; the release damps audio then.

    Args:
        score: (M,), at least 0, NaN for a modality without one.
        alpha: At least 0.

    Returns:
        (M,) in [0, 1]; all 1 unless two modalities have a score.

    Source:
        OGM-GE (CVPR 2022).
    """
    ratio = leading_ratio(score)
    return torch.where(ratio > 1, 1 - torch.tanh(alpha * ratio), torch.ones_like(ratio))


class OGM(Balancer):
    """On-the-fly gradient modulation.

    After backward, each modality's own logits (its exact share of the fused ones where fusion and head are linear)
    give its mean probability of the true class; the kernels of a leading encoder are damped by `leading_coefficient`.
    Scores are sums over all processes, so that every process damps alike.

    The release touches four-dimensional tensors alone, that is convolution kernels of images. Here every encoder weight
    with at least two axes counts by default, so that MLPs and 1-D convolutions are balanced too; in convolutional
    image encoders these are the same tensors.

    With one modality, or no row to compare on, nothing is changed.

    Args:
        alpha, first_epoch, last_epoch, rows, parameters: See `OGMOptions`.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.8,
        first_epoch: int = 0,
        last_epoch: int = 50,
        rows: ComparedRows = "complete",
        parameters: ModulatedParameters = "kernels",
    ) -> None:
        self.alpha = alpha
        self.first_epoch, self.last_epoch = first_epoch, last_epoch
        self.complete_rows = rows == "complete"
        self.convolutions_only = parameters == "convolutions"

    def modulate_gradients(self, view: StepView) -> None:
        """Scale the kernels' gradients of each modality by its coefficient."""
        if not self.first_epoch <= view.clock.epoch <= self.last_epoch or len(view.modalities) == 1:
            return
        score = view.true_class_probability(complete_rows=self.complete_rows)
        gradients = [self.gradients(view, name) for name in view.modalities]
        self.apply(gradients, score, view)

    def gradients(self, view: StepView, modality: str) -> list[Tensor]:
        """Gradients of one encoder that are modulated; parameters without one are left out."""
        found = []
        for parameter in view.groups[modality]:
            fits = parameter.dim() == 4 if self.convolutions_only else parameter.dim() >= 2
            if fits and parameter.grad is not None:
                found.append(parameter.grad)
        return found

    def apply(self, gradients: list[list[Tensor]], score: Tensor, view: StepView) -> None:
        """Edit the gradients in place.

        Args:
            gradients: Of each modality.
            score: (M,), NaN for a modality without one.
            view: The step.
        """
        for own, factor in zip(gradients, leading_coefficient(score, self.alpha).unbind(), strict=True):
            if own:
                torch._foreach_mul_(own, factor.to(own[0].dtype))


@hookimpl
def robustmm_register_balancers(register: Callable[[Component], None]) -> None:
    """Offer the strategy."""
    register(
        Component(
            name="ogm",
            build=OGM,
            options=OGMOptions,
            summary="Damp the gradients of the encoder whose modality leads.",
            source="Peng et al., CVPR 2022, arXiv:2203.15332; code GeWu-Lab/OGM-GE_CVPR2022",
            fidelity="code",
            requires=frozenset({"class_probability"}),
        )
    )
