"""OPM: in the forward pass, drop whole features of the modality that leads from some of the samples.

Source: Wei et al., On-the-fly Modulation for Balanced Multimodal Learning, TPAMI 2024, arXiv:2410.11582; code
GeWu-Lab/BML_TPAMI2024.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from robustmm import Balancer, Component, Options, StepView, derive_seed, hookimpl

from .ogm import ComparedRows, leading_ratio

#: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): its increment and the factors of its mixing, as signed numbers.
INCREMENT = 0x9E3779B97F4A7C15 - 2**64
FACTORS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)


class OPMOptions(Options):
    """Options of OPM."""

    drop_probability: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Probability with which a sample loses a modality that leads by a trace (q_base). Published: 0.5 "
        "in the script, 0.4 in the configuration. 0 drops nothing.",
    )
    lead_weight: float = Field(0.5, ge=0, description="How much a larger lead adds to that probability (lambda).")
    batch_probability: float = Field(
        0.7, ge=0, le=1, description="Probability with which a batch is treated at all (p_exe)."
    )
    warmup_epochs: int = Field(6, ge=0, description="Epochs at the beginning in which nothing is dropped.")
    rows: ComparedRows = Field(
        "complete",
        description="Rows on which modalities are compared: those that show all of them, or for each modality those "
        "that show it.",
    )

    @classmethod
    def contract_example(cls) -> dict[str, Any]:
        """Active within a short run."""
        return {"warmup_epochs": 1}


def drop_probabilities(score: Tensor, base: float, lead_weight: float) -> Tensor:
    """Probability with which a sample loses each modality: q_u = clip(base (1 + lead_weight tanh(rho_u - 1)), 0, 1).

    Args:
        score: (M,), at least 0, NaN for a modality without one.
        base: In [0, 1].
        lead_weight: At least 0.

    Returns:
        (M,); 0 for a modality that does not lead, see `robustmm_plugins.balancing.ogm.leading_ratio`.
    """
    ratio = leading_ratio(score)
    return (base * (1 + lead_weight * torch.tanh(ratio - 1))).clamp(0, 1).where(ratio > 1, 0.0)


def sample_uniforms(index: Tensor, count: int, seed: int) -> Tensor:
    """Numbers in [0, 1) that depend on the sample and the seed alone, not on the batch or process it came to.

    Args:
        index: (B,) int64, position of each sample in its part.
        count: Numbers per sample.
        seed: In [0, 2**63).

    Returns:
        (B, count) float32: the leading 24 bits of numbers index * count and following of SplitMix64 with that seed.
    """
    place = index[:, None] * count + torch.arange(count, device=index.device) + 1
    bits = place * INCREMENT + seed  # int64 wraps around as unsigned arithmetic does
    for shift, factor in zip((30, 27), FACTORS, strict=True):
        bits = (bits ^ _shifted(bits, shift)) * factor
    return _shifted(bits ^ _shifted(bits, 31), 40).float() * 2.0**-24


def _shifted(bits: Tensor, by: int) -> Tensor:
    """``bits`` >> ``by`` without the sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def draw_drops(shown: Tensor, uniform: Tensor, probability: Tensor) -> tuple[Tensor, Tensor]:
    """What each sample loses.

    Args:
        shown: (B, M) bool.
        uniform: (B, M) in [0, 1).
        probability: (M,), see `drop_probabilities`.

    Returns:
        (B, M) bool: what is dropped of what is shown; (B,) bool: the samples that are left alone, because they show one
        modality or would lose all that they show.
    """
    drop = shown & (uniform < probability)
    alone = (shown.sum(dim=1) < 2) | ~(shown & ~drop).any(dim=1)
    return drop & ~alone[:, None], alone


def feature_scale(shown: Tensor, alone: Tensor, probability: Tensor, widths: Sequence[int]) -> Tensor:
    """1 / (1 - theta) with theta the expected share of a sample's features that is dropped; 1 for those left alone.

    Args:
        shown: (B, M) bool.
        alone: (B,) bool, see `draw_drops`.
        probability: (M,).
        widths: Channels of each modality.

    Returns:
        (B,), at least 1.
    """
    present = shown * torch.tensor(widths, dtype=probability.dtype, device=shown.device)  # (B, M)
    theta = (present * probability).sum(dim=1) / present.sum(dim=1).clamp_min(1)
    return (1 / (1 - theta)).masked_fill(alone, 1.0)  # theta is 1 only where all would be lost


class OPM(Balancer):
    """On-the-fly prediction modulation.

    In a batch that is treated, each sample loses the whole feature of a leading modality with a probability that grows
    with the lead; what it still shows is scaled by 1 / (1 - theta), as in dropout. Backward leaves the encoder of the
    dropped feature alone, and the head learns to do without. Evaluation is as ever.

    Where it differs from the release:

    - Features have no logits yet when they are to be dropped, so the lead is that of the update before, one step old;
      the release takes the logits of the same batch. The score is kept in checkpoints.
    - A sample that would lose everything keeps everything; the release leaves it out of the batch. With two complete
      modalities neither happens, since one of them alone leads.
    - Samples may lack modalities: theta is the share of what the sample shows, and a sample that shows one modality is
      left alone. With complete samples this is the release. What is dropped becomes 0, whatever the missing policy,
      and fusions still count it as present.
    - Scores are constants. The release's own backward function lets a gradient of theta through them into the encoders.
    - More than two modalities are compared as in `robustmm_plugins.balancing.ogm.OGM`.

    What a sample loses is drawn from seed, step and sample, so it does not depend on how samples are dealt to batches
    and processes; all levels of a step lose the same.

    Args:
        drop_probability, lead_weight, batch_probability, warmup_epochs, rows: See `OPMOptions`.
    """

    def __init__(
        self,
        *,
        drop_probability: float = 0.5,
        lead_weight: float = 0.5,
        batch_probability: float = 0.7,
        warmup_epochs: int = 6,
        rows: ComparedRows = "complete",
    ) -> None:
        self.drop_probability = drop_probability
        self.lead_weight = lead_weight
        self.batch_probability = batch_probability
        self.warmup_epochs = warmup_epochs
        self.complete_rows = rows == "complete"
        self.score: Tensor | None = None  # (M,) of the update before

    def modulate_features(self, level: int, features: Mapping[str, Tensor], view: StepView) -> Mapping[str, Tensor]:
        """Drop and scale what enters a fusion."""
        if view.clock.epoch < self.warmup_epochs or self.score is None or not self._treats(view):
            return features
        if len(features) == 1 or not view.contested:
            return features
        shown = view.presence
        probability = drop_probabilities(self.score.to(shown.device), self.drop_probability, self.lead_weight)
        seed = derive_seed(view.seed, view.clock.step, "opm samples")
        uniform = sample_uniforms(view.batch.index, len(features), seed).to(shown.device)
        drop, alone = draw_drops(shown, uniform, probability)
        scale = feature_scale(shown, alone, probability, [feature.shape[1] for feature in features.values()])
        factor = scale[:, None].where(shown, 1.0)  # (B, M): what stands in for an absent modality stays as it is
        return {
            name: _edited(feature, drop[:, column], factor[:, column])
            for column, (name, feature) in enumerate(features.items())
        }

    def _treats(self, view: StepView) -> bool:
        return derive_seed(view.seed, view.clock.step, "opm batch") < self.batch_probability * 2**63

    def modulate_gradients(self, view: StepView) -> None:
        """Keep the scores for the next update; a modality without one keeps its last."""
        if len(view.modalities) == 1 or view.clock.epoch + 1 < self.warmup_epochs or not view.contested:
            return
        score = view.true_class_probability(complete_rows=self.complete_rows)
        self.score = score if self.score is None else self.score.to(score.device).where(score.isnan(), score)

    def state_dict(self) -> dict[str, Any]:
        """The scores of the last update."""
        return {} if self.score is None else {"score": self.score}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Balancer.load_state_dict`."""
        self.score = state.get("score")


def _edited(feature: Tensor, drop: Tensor, factor: Tensor) -> Tensor:
    """A feature (B, D, ...) with dropped rows 0, drop (B,), and every row times its factor (B,)."""
    shape = (-1, *[1] * (feature.dim() - 1))
    return feature.masked_fill(drop.view(shape), 0.0) * factor.to(feature.dtype).view(shape)


@hookimpl
def robustmm_register_balancers(register: Callable[[Component], None]) -> None:
    """Offer the strategy."""
    register(
        Component(
            name="opm",
            build=OPM,
            options=OPMOptions,
            summary="Drop whole features of the leading modality from some of the samples.",
            source="Wei et al., TPAMI 2024, arXiv:2410.11582; code GeWu-Lab/BML_TPAMI2024",
            fidelity="code",
            requires=frozenset({"class_probability"}),
            conflicts=frozenset({"no_fusion"}),
        )
    )
