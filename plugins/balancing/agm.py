"""AGM: split the fused logits into one part per modality by Shapley values, and scale each part's gradient.

Source: Li et al., Boosting Multi-modal Model Performance with Adaptive Gradient Modulation, ICCV 2023,
arXiv:2308.07686; code lihong2303/AGM_ICCV2023.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import factorial
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from robustmm import (
    Balancer,
    Component,
    ConfigError,
    EpochPlan,
    EpochView,
    LossTerm,
    Options,
    RunFailed,
    StepView,
    Task,
    hookimpl,
    where_present,
)

#: Least probability of the true class in a score.
SMALLEST_PROBABILITY = 1e-8
#: By how much the task's loss may differ, relatively, from the term that is replaced: rounding alone.
SAME_LOSS = 1e-4


class AGMOptions(Options):
    """Options of AGM."""

    alpha: float = Field(
        1.0,
        ge=0,
        description="Strength of the modulation. Published: 1 in the code, 2.5 (AV-MNIST), 1.5 (CREMA-D). 0 is plain "
        "training, without its extra passes.",
    )
    cap: float | None = Field(
        10.0,
        ge=0,
        description="Largest exponent, before alpha, by which a modality behind is boosted. Published: 10 (CREMA-D), 7 "
        "(UR-Funny), null, for none (AV-MNIST, AVE, MOSEI).",
    )
    first_epoch: int = Field(0, ge=0, description="First epoch with modulation; before it, scores are taken alone.")
    last_epoch: int = Field(
        20, ge=0, description="Last epoch with modulation, included. Published: 20 in the code, 1500 (CREMA-D)."
    )
    max_modalities: int = Field(
        6,
        ge=1,
        description="Largest number of modalities: M of them take 2**M - 2 further passes through fusion and head in "
        "each step, and as many times their memory.",
    )

    @model_validator(mode="after")
    def _epochs_in_order(self) -> AGMOptions:
        if self.first_epoch > self.last_epoch:
            raise ValueError(f"first_epoch {self.first_epoch} lies behind last_epoch {self.last_epoch}")
        return self


def subset_table(count: int, device: torch.device) -> Tensor:
    """(2**M, M) bool: row k is the subset whose bits k has; the empty one first, the complete one last."""
    codes = torch.arange(2**count, device=device)
    return (codes[:, None] >> torch.arange(count, device=device)) & 1 > 0


def shapley_values(values: Tensor) -> Tensor:
    """Each modality's part of what all give together.

    phi_m = sum over S without m of |S|! (M - |S| - 1)! / M! (v(S + m) - v(S)).

    Args:
        values: (2**M, ...) v(S) in the order of `subset_table`; v of nothing is values[0].

    Returns:
        (M, ...); their sum is values[-1] - values[0].
    """
    parts = []
    for modality in range(len(values).bit_length() - 1):
        part = torch.zeros_like(values[0])
        for code, value in enumerate(values.unbind()):
            part = part.add(value, alpha=_weight(code, modality, len(values).bit_length() - 1))
        parts.append(part)
    return torch.stack(parts)


def _weight(code: int, modality: int, count: int) -> float:
    """What v of the subset with these bits counts in the part of a modality."""
    size = code.bit_count()
    if code >> modality & 1:  # it is S + m, and S has one fewer
        return factorial(size - 1) * factorial(count - size) / factorial(count)
    return -factorial(size) * factorial(count - size - 1) / factorial(count)


def ahead(score: Tensor) -> Tensor:
    """How far each modality is ahead: exp(mean of the others' scores - its own); above 1 it leads.

    Args:
        score: (M,) cross-entropies, NaN for a modality without one.

    Returns:
        (M,); 1 for a modality without a score or without another to compare with.
    """
    known = ~score.isnan()
    summed = score.nan_to_num()
    others = (summed.sum() - summed) / (known.sum() - 1).clamp_min(1)
    compared = known & (known.sum() > 1)
    return (others - summed).exp().where(compared, 1.0)


def modulation(score: Tensor, history: Tensor, alpha: float, cap: float | None) -> Tensor:
    """Gradient factor of each modality: exp(alpha min(r* - r, cap)), with r of the step and r* of its history.

    Args:
        score: (M,) cross-entropies of the step, NaN for a modality without one.
        history: (M,) their means over the steps before, NaN for a modality without any.
        alpha: At least 0.
        cap: Largest exponent before alpha; None for none.

    Returns:
        (M,); 1 for a modality without a score. In the first step r* is 1.
    """
    behind = ahead(history.where(~score.isnan(), torch.nan)) - ahead(score)  # r* over those that are here
    if cap is not None:
        behind = behind.clamp_max(cap)
    return (alpha * behind).exp().where(~score.isnan(), 1.0)


class _ScaleGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a factor (a scalar tensor)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return gradients[0] * factor.to(gradients[0].dtype), None


def scaled_sum(parts: Tensor, factors: Tensor) -> Tensor:
    """The sum of parts (M, ...) over the first axis, each part's gradient multiplied by its factor, (M,)."""
    scaled = [_ScaleGradient.apply(part, factor) for part, factor in zip(parts.unbind(), factors.unbind(), strict=True)]
    return torch.stack(scaled).sum(dim=0)


def score_sums(task: Task, parts: Tensor, target: Tensor, presence: Tensor) -> Tensor:
    """Sum of -log p(true class) of each modality's part, and number of rows, over rows that show it.

    Args:
        task: Tells rows from logits: samples, or valid pixels.
        parts: (M, B, C, ...).
        target: Labels of the batch.
        presence: (B, M) bool.

    Returns:
        (2, M) float32: sums, counts.
    """
    count = len(parts)
    rows = task.rows(parts.detach().transpose(0, 1).flatten(1, 2), target)  # once, since finding pixels may wait
    by_part = rows.logits.view(len(rows.target), count, -1)  # (R, M, C)
    true = rows.target[:, None, None].expand(-1, count, 1)
    probability = by_part.softmax(dim=2).gather(2, true).squeeze(2)  # (R, M)
    there = presence[rows.sample]
    losses = -probability.clamp_min(SMALLEST_PROBABILITY).log()
    return torch.stack([losses.masked_fill(~there, 0.0).sum(dim=0).float(), there.sum(dim=0).float()])


class AGM(Balancer):
    """Adaptive gradient modulation.

    The logits are split into one part phi_m per modality by Shapley values over all subsets of what a sample shows,
    the empty one counting 0, so that the parts add up to the logits. Each part's cross-entropy against the others' says
    how far its modality is ahead; where it is further ahead than in the steps before, the gradient through its part is
    damped, else boosted. The task's loss and every other term keep their values.

    - A modality is hidden by the model's own missing policy, and features at hand are fused anew. The release sets raw
      inputs to zero; with the missing policy ``zero_input`` that is what happens here, too.
    - As released, the passes with hidden modalities are in evaluation mode and the complete one is in training mode,
      so the parts mix two normalisations where fusion or head have BatchNorm or dropout.
    - Of a sample that lacks a modality, that modality's part is 0 and stays out of its score. A modality without a row
      in a step is not modulated, and its history stays.
    - Scores are sums over processes, and over the batches of an update so far; the history grows once an update.
    - After the last epoch the release goes on with factors of 1 at the same cost. That is plain training, which is what
      happens here; the history then ends.
    - In the released code for three modalities probabilities have no floor; here they have 1e-8, as in the others.
    - The release sets the norm of all gradients to at most 1 (UR-Funny 5) once an element of the last layer's exceeds
      that. Use ``train.clip_norm``, which bounds the norm always.

    Side outputs of a head keep their own gradient.

    Args:
        alpha, cap, first_epoch, last_epoch, max_modalities: See `AGMOptions`.
    """

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        cap: float | None = 10.0,
        first_epoch: int = 0,
        last_epoch: int = 20,
        max_modalities: int = 6,
    ) -> None:
        self.alpha, self.cap = alpha, cap
        self.first_epoch, self.last_epoch = first_epoch, last_epoch
        self.max_modalities = max_modalities
        self.history: Tensor | None = None  # (2, M): mean score and number of steps of each modality
        self._sums: Tensor | None = None  # of the batches of this update so far
        self._checked = False

    def on_epoch_start(self, epoch: EpochView) -> EpochPlan | None:
        """Refuse more modalities than are allowed."""
        self._refuse_many(epoch.modalities)
        return None

    def _refuse_many(self, modalities: Sequence[str]) -> None:
        count = len(modalities)
        if count > self.max_modalities:
            raise ConfigError(
                [
                    f"balancer.max_modalities: {count} modalities take {2**count - 2} further passes in each step, and "
                    f"{self.max_modalities} modalities are allowed; choose some with data.modalities, or allow {count}"
                ]
            )

    def weigh(self, terms: Mapping[str, LossTerm], view: StepView) -> Mapping[str, LossTerm]:
        """Let the task's loss see the logits through their parts."""
        if not self._acts(view):
            return terms
        self._refuse_many(view.modalities)
        modulates = view.clock.epoch >= self.first_epoch
        with torch.set_grad_enabled(modulates):
            parts = self._parts(view)
        sums = score_sums(view.method.task, parts, view.batch.target, view.presence)
        self._sums = sums if view.earlier is None or self._sums is None else self._sums + sums
        if not modulates:
            return terms
        self._refuse_other_loss(terms, view)
        factors = modulation(self._score(view), self._history(view), self.alpha, self.cap)
        scales = [scaled_sum(parts, factors), *view.output.coarser]
        loss = view.method.task.loss_over(scales, view.batch.target)
        return {**terms, "task": LossTerm(loss, "task")}

    def _acts(self, view: StepView) -> bool:
        if len(view.modalities) == 1 or self.alpha == 0 or view.clock.epoch > self.last_epoch:
            return False
        return view.contested

    def _parts(self, view: StepView) -> Tensor:
        """(M, B, C, ...): the modalities' parts of the logits; 0 for what a sample does not show."""
        presence = view.presence
        complete = view.output.logits
        table = subset_table(len(view.modalities), presence.device)
        masks = [presence & subset for subset in table[1:-1]]
        nothing = torch.zeros_like(complete)
        values = [nothing]
        for mask, logits in zip(masks, view.subset_logits(masks), strict=True):
            shown = where_present(logits.to(complete.dtype), mask.any(dim=1), nothing)
            values.append(where_present(complete, (mask == presence).all(dim=1), shown))  # nothing is hidden there
        single = torch.promote_types(complete.dtype, torch.float32)
        parts = shapley_values(torch.stack([*values, complete]).to(single))
        return where_present(parts.flatten(0, 1), presence.T.flatten(), parts.new_zeros(())).view_as(parts)

    def _score(self, view: StepView) -> Tensor:
        """(M,) mean cross-entropy over the update so far and all processes, NaN for a modality without a row."""
        assert self._sums is not None
        summed, count = view.all_reduce(self._sums).unbind()
        return torch.where(count > 0, summed / count.clamp_min(1), torch.nan)

    def _history(self, view: StepView) -> Tensor:
        """(M,) mean score over the steps before, NaN for a modality that has none."""
        if self.history is None:
            return torch.full((len(view.modalities),), torch.nan, device=view.presence.device)
        mean, steps = self.history.to(view.presence.device).unbind()
        return mean.where(steps > 0, torch.nan)

    def _refuse_other_loss(self, terms: Mapping[str, LossTerm], view: StepView) -> None:
        """Once a run: the term that is replaced must be the task's own loss, or a method's loss would be lost.

        Raises:
            RunFailed: it is another one.
        """
        if self._checked:
            return
        plain = view.method.task.loss_over(view.output.scales, view.batch.target)
        same = "task" in terms and torch.allclose(terms["task"].value, plain, rtol=SAME_LOSS, equal_nan=True)
        if not same:
            raise RunFailed(
                "balancer 'agm' puts parts of the logits into the task's loss, and this method has another loss in its "
                "place; choose another balancer or method"
            )
        self._checked = True

    def modulate_gradients(self, view: StepView) -> None:
        """Add the update's scores to the history."""
        if self._sums is None:
            return
        score = self._score(view)
        self._sums = None
        history = torch.zeros(2, len(score), device=score.device) if self.history is None else self.history
        mean, steps = history.to(score.device).unbind()
        counted = score.isfinite()
        steps = steps + counted
        self.history = torch.stack([torch.where(counted, mean + (score - mean) / steps.clamp_min(1), mean), steps])

    def state_dict(self) -> dict[str, Any]:
        """The history."""
        return {} if self.history is None else {"history": self.history}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Balancer.load_state_dict`."""
        self.history = state.get("history")


@hookimpl
def robustmm_register_balancers(register: Callable[[Component], None]) -> None:
    """Offer the strategy."""
    register(
        Component(
            name="agm",
            build=AGM,
            options=AGMOptions,
            summary="Scale the gradient through each modality's Shapley part of the logits.",
            source="Li et al., ICCV 2023, arXiv:2308.07686; code lihong2303/AGM_ICCV2023",
            fidelity="code",
            requires=frozenset({"class_probability"}),
            conflicts=frozenset({"own_loss"}),
        )
    )
