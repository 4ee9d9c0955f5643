"""ARL: strengthen the encoders of modalities on which the model depends less than their variance deserves.

Source: Wei et al., Improving Multimodal Learning via Imbalanced Learning, ICCV 2025, arXiv:2507.10203; code
shicaiwei123/ICCV2025-ARL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from pydantic import Field
from torch import Tensor

from robustmm import Balancer, Component, LossTerm, Options, StepView, Task, added, hookimpl

#: Least share of entropy, times the number of modalities: 0.3 for two.
LEAST_ENTROPY = 0.6


class ARLOptions(Options):
    """Options of the strategy."""

    gamma: float = Field(
        4.0,
        ge=0,
        description="Weight of the unimodal losses after warm-up; it is 1 before. Released: 4 (CREMA-D), 5 (AVE), "
        "3 (Kinetics-Sounds). 0 leaves them out.",
    )
    temperature: float = Field(
        8.0, ge=0, description="How sharply weights follow dependence and variance. Released: 8 (CREMA-D), 4 (others)."
    )
    first_epoch: int = Field(
        6, ge=0, description="First epoch with weights and with gamma, after a warm-up; the release's start + 1."
    )
    apply_weights: bool = Field(
        True, description="false trains on the unimodal losses alone, as the released loop does."
    )


def readout_sums(task: Task, logits: Mapping[str, Tensor], target: Tensor, presence: Tensor) -> Tensor:
    """Sum of absolute logits, sum of entropies, and number of rows, for each modality.

    Args:
        task: Tells rows from logits: samples, or valid pixels.
        logits: Modality -> logits of that modality alone.
        target: Labels of the batch.
        presence: (B, M) bool; only rows in which a modality is present count for it.

    Returns:
        (3, M), in float32 or more precisely; entropies in nats.
    """
    sums = []
    for column, own in enumerate(logits.values()):
        rows = task.rows(own, target)
        there = presence[rows.sample, column]
        exact = rows.logits.to(torch.promote_types(rows.logits.dtype, torch.float32))  # (R, C)
        size = exact.abs().sum(dim=1)
        entropy = torch.special.entr(exact.softmax(dim=1)).sum(dim=1)
        sums.append(torch.stack([(size * there).sum(), (entropy * there).sum(), there.sum().to(exact)]))
    return torch.stack(sums, dim=1)


def asymmetric_weights(dependence: Tensor, entropy: Tensor, temperature: float) -> Tensor:
    """Weight of each modality: above the mean where the model depends on it less than the inverse of its variance asks.

    With the shares d of dependence and h of entropy (the stand-in for variance, not below 0.6 / k of k modalities), and
    q the share of 1 / h, the weights are softmax((temperature / 2) (q - d)). They are equal exactly where d = q. Where
    all logits or all entropies are 0 their shares are equal; the release divides 0 by 0 there.

    Args:
        dependence: (M,) mean over rows of the sum of absolute logits, NaN for a modality without a row.
        entropy: (M,) mean entropy, likewise.
        temperature: At least 0.

    Returns:
        (M,) that sum to 1 over the modalities with a row; 0 for others, and for all where fewer than two have one.

    Source:
        ARL's code for two modalities, where this is sigmoid(temperature (q - d)); softmax and floor for more are this
        project's and reduce to it.
    """
    present = ~dependence.isnan()
    count = present.sum()
    d = _shares(dependence, present)
    h = torch.maximum(_shares(entropy, present), LEAST_ENTROPY / count.clamp_min(1).to(entropy.dtype))
    q = _shares(1 / h, present)
    weights = (temperature / 2 * (q - d)).masked_fill(~present, -torch.inf).softmax(dim=0)
    return torch.where(present & (count > 1), weights, 0.0)


def _shares(value: Tensor, present: Tensor) -> Tensor:
    """(M,) parts of the sum over present modalities; equal parts where that is 0, and 0 for absent ones."""
    known = torch.where(present, value, 0.0)
    total = known.sum()
    return torch.where(total > 0, known / torch.where(total > 0, total, 1.0), present / present.sum().clamp_min(1))


class ARL(Balancer):
    """Asymmetric representation learning.

    Each modality's logits come from the model's own fusion and head with all other modalities hidden, so that each gets
    the whole bias, as in the release. Their losses are added with weight gamma. After backward, the gradients of
    modality m's encoder are multiplied by 1 + w_m, with w of `asymmetric_weights`: that is what a factor on the
    gradient at the encoder's output does, and it holds for all loss terms. Fusion and head are not scaled. Weights come
    from all batches of the update and all processes, before they become factors, and from this step's own logits.

    The release computes w and prints it but never hands it to the scaling, whose backward raises an error besides. The
    paper's form is the default; ``apply_weights=False`` is the released training. Two more deviations: only rows
    (samples, or valid pixels) in which a modality is present count for it, and a modality without one keeps the factor
    1 and has no share; hidden modalities are what the missing policy makes of them, so dropout is off and statistics
    of BatchNorm in a fusion are those of evaluation.

    Where no sample shows two modalities, nothing is changed.

    Args:
        gamma, temperature, first_epoch, apply_weights: See `ARLOptions`.
    """

    def __init__(
        self, *, gamma: float = 4.0, temperature: float = 8.0, first_epoch: int = 6, apply_weights: bool = True
    ) -> None:
        self.gamma, self.temperature = gamma, temperature
        self.first_epoch, self.apply_weights = first_epoch, apply_weights

    def weigh(self, terms: Mapping[str, LossTerm], view: StepView) -> Mapping[str, LossTerm]:
        """Add the loss of each modality alone."""
        gamma = 1.0 if self._warming_up(view) else self.gamma
        if gamma == 0 or not view.contested:
            return terms
        return added(terms, {name: gamma * loss for name, loss in view.shared_head_losses().items()}, "alone")

    def modulate_gradients(self, view: StepView) -> None:
        """Scale each encoder's gradients by one plus its weight."""
        if not self.apply_weights or self._warming_up(view) or not view.contested:
            return
        view.scale_gradients(1 + self.weights(view))

    def weights(self, view: StepView) -> Tensor:
        """See `asymmetric_weights`, over the whole update and all processes."""
        with torch.no_grad():
            sums = [readout_sums(p.method.task, p.alone_logits, p.batch.target, p.presence) for p in view.parts]
        size, entropy, count = view.all_reduce(torch.stack(sums).sum(dim=0))
        return asymmetric_weights(size / count, entropy / count, self.temperature)  # 0 / 0 is NaN: absent

    def _warming_up(self, view: StepView) -> bool:
        return view.clock.epoch < self.first_epoch


@hookimpl
def robustmm_register_balancers(register: Callable[[Component], None]) -> None:
    """Offer the strategy."""
    register(
        Component(
            name="arl",
            build=ARL,
            options=ARLOptions,
            summary="Strengthen encoders by dependence and variance of their modalities, with unimodal losses.",
            source="Wei et al., ICCV 2025, arXiv:2507.10203; code shicaiwei123/ICCV2025-ARL",
            fidelity="code",
            requires=frozenset({"class_probability"}),
        )
    )
