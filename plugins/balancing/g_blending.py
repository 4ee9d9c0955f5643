"""Gradient-Blending: weigh the losses of the joint head and of each modality's own by how well they generalise.

Source: Wang et al., What Makes Training Multi-Modal Classification Networks Hard?, CVPR 2020, arXiv:1905.12681. The
released code (facebookresearch/VMZ) has the weighted loss and no estimator; the estimator follows the formulas as two
re-implementations have them, and pliang279/MultiBench for ``form: absolute``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from robustmm import (
    Balancer,
    Batch,
    Component,
    EpochPlan,
    EpochView,
    LateTrunk,
    LossTerm,
    Method,
    Options,
    Output,
    RunFailed,
    StepView,
    added,
    generator_for,
    hookimpl,
)

#: Added to the squared growth of overfitting, which may be 0.
SMALLEST_SQUARE = 1e-8
#: What MultiBench takes in the place of negative overfitting.
FLOOR = 1e-4

Mode = Literal["online", "offline"]
Form = Literal["delta", "absolute"]
Trials = Literal["together", "apart"]


class GBlendingOptions(Options):
    """Options of Gradient-Blending."""

    mode: Mode = Field(
        "online",
        description="online estimates the weights again before every super-epoch and never trains on the held-out "
        "share; offline estimates them once, from the initial weights, and trains on everything.",
    )
    super_epoch: int = Field(10, gt=0, description="Epochs between two estimates; 10 in BalanceBenchmark.")
    trial_epochs: int | None = Field(
        None, gt=0, description="Epochs that an estimate trains its copies for; null for a super-epoch."
    )
    held_out: float = Field(
        0.08,
        gt=0,
        lt=1,
        description="Share of the training part, drawn at random, on which generalisation is measured; 0.08 in "
        "MultiBench. The validation part is not used.",
    )
    form: Form = Field(
        "delta",
        description="Whether gain and overfitting are changes over the trial, as in the paper, or the values at its "
        "end, as MultiBench runs it.",
    )
    trials: Trials = Field(
        "together",
        description="together trains all modalities' copies in one, with the sum of their losses, where the trunk has "
        "separate encoders: the same but for gradient clipping and auxiliary terms, which then act on all of them. "
        "apart trains one after the other.",
    )


def blend_weights(before: Tensor, after: Tensor, previous: Tensor | None = None, *, form: Form = "delta") -> Tensor:
    """Weight of each head: how much it came to generalise, divided by the square of how much it came to overfit.

    With LT and LV the training and held-out loss, O = LV - LT, a gain G = LV_before - LV_after and a growth
    dO = O_after - O_before, the weight is proportional to max(G, 0) / (dO^2 + 1e-8). The clamps are this project's.

    Args:
        before: (K, 2) training and held-out loss of each head before the trial, NaN for a head without samples.
        after: Likewise behind it; not finite for a copy that diverged.
        previous: (K,) weights that are kept where no head gains; None for equal ones.
        form: ``absolute`` takes LV_after / O_after^2 instead, with 1e-4 for an O that is not positive.

    Returns:
        (K,) at least 0, of sum 1.

    Source:
        Gradient-Blending (CVPR 2020); ``absolute`` is what MultiBench's gradient_blend.py does as released.
    """
    overfitting = after[:, 1] - after[:, 0]
    if form == "absolute":
        raw = after[:, 1] / overfitting.where(~(overfitting <= 0), FLOOR).square()
    else:
        growth = overfitting - (before[:, 1] - before[:, 0])
        raw = (before[:, 1] - after[:, 1]).clamp_min(0) / (growth.square() + SMALLEST_SQUARE)
    raw = raw.nan_to_num(nan=0.0, posinf=0.0)
    if raw.sum() > 0:
        return raw / raw.sum()
    return torch.full_like(raw, 1 / len(raw)) if previous is None else previous


def head_sums(method: Method, batch: Batch, output: Output) -> Tensor:
    """Summed loss and number of samples of each head, (M + 1, 2) float64 on the CPU: the joint one, then by modality.

    Every sample's loss is the task's, over the samples that have the modality; a label map's is a mean of its own.
    """
    heads, task = method.unimodal_heads, method.task
    if heads is None:
        raise RunFailed("g_blending needs a head per modality, which the trunk of this run does not provide")
    size = task.target_size(batch.target)
    losses = [task.sample_losses(output.logits, batch.target)]
    losses += [task.sample_losses(heads[name](output.features[name], size), batch.target) for name in batch.modalities]
    counted = torch.cat([torch.ones(len(batch), 1, dtype=torch.bool), batch.observed], dim=1)  # (B, M + 1)
    kept = torch.stack(losses, dim=1).cpu().double().where(counted, 0.0)
    return torch.stack([kept.sum(dim=0), counted.sum(dim=0)], dim=1)


class OneLoss(Balancer):
    """Training with the loss of the joint head alone, or with those of some modalities' own heads.

    Terms that are not the task's stay.

    Args:
        names: Modalities; none for the joint head.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names = tuple(names)

    def weigh(self, terms: Mapping[str, LossTerm], view: StepView) -> Mapping[str, LossTerm]:
        """See `Balancer.weigh`."""
        if not self.names:
            return terms
        losses = view.own_head_losses()
        kept = {name: term for name, term in terms.items() if term.role != "task"}
        return added(kept, {name: losses[name] for name in self.names if name in losses}, "own_head")

    def backward(self, terms: Mapping[str, LossTerm], view: StepView) -> None:
        """See `Balancer.backward`; a batch without the modality has no term."""
        if terms:
            super().backward(terms, view)


class GBlending(Balancer):
    """A head per modality beside the joint one, and a weighted sum of all their losses.

    An estimate trains a copy of the model with the loss of the joint head alone, and copies with those of the
    modalities' heads, all from where the model stands and with the run's own recipe, on a part T of training. The rest,
    V, tells how much each head came to generalise and to overfit (`blend_weights`). Losses are means over samples, in
    evaluation mode and without augmentation, of one model before and one behind the trial; the loss of a modality's
    head counts the samples that have it. The copies leave no trace in the model. The joint head alone predicts.

    V is drawn once from the run's seed. Online the model itself must never train on V either: a model that knows V has
    nothing to gain there, and every weight would be 0. The price is that share of the training part. The loss that is
    measured is the task's, for methods that train with another one too.

    Terms of other roles than ``task`` are left as they are. Where no sample has two modalities, nothing is changed.

    Args:
        mode, super_epoch, trial_epochs, held_out, form, trials: See `GBlendingOptions`.
    """

    def __init__(
        self,
        *,
        mode: Mode = "online",
        super_epoch: int = 10,
        trial_epochs: int | None = None,
        held_out: float = 0.08,
        form: Form = "delta",
        trials: Trials = "together",
    ) -> None:
        self.online = mode == "online"
        self.super_epoch = super_epoch
        self.trial_epochs = trial_epochs
        self.held_out = held_out
        self.form: Form = form
        self.together = trials == "together"
        self.weights: Tensor | None = None  # (M + 1,) float64, of the joint head and each modality's

    def on_epoch_start(self, epoch: EpochView) -> EpochPlan | None:
        """Estimate the weights where it is time for it."""
        if len(epoch.modalities) == 1 or epoch.samples < 2:
            return None
        training, held_out = self.split(epoch.samples, epoch.seed)
        number = epoch.clock.epoch
        if number == 0 or (self.online and number % self.super_epoch == 0):
            self.weights = self.estimate(epoch, training, held_out)
        return EpochPlan(training) if self.online and self.weights is not None else None

    def split(self, samples: int, seed: int) -> tuple[Tensor, Tensor]:
        """Positions of T and V, the same in every epoch and process."""
        order = torch.randperm(samples, generator=generator_for(seed, "g_blending"))
        count = min(max(round(self.held_out * samples), 1), samples - 1)
        return order[count:].sort().values, order[:count].sort().values

    def estimate(self, epoch: EpochView, training: Tensor, held_out: Tensor) -> Tensor | None:
        """New weights; None where no sample has two modalities."""

        def losses(method: Method | None = None) -> Tensor:
            """(M + 1, 2, 2): training and held-out part; sum and count."""
            return torch.stack([summed_losses(epoch, part, method) for part in (training, held_out)], dim=1)

        before = losses()
        counts = before[..., 1].sum(dim=1)
        if counts[1:].sum() <= counts[0]:
            return None
        length = self.trial_epochs or min(self.super_epoch, epoch.clock.epochs - epoch.clock.epoch)
        after = before.clone()
        for heads, names in self._trials(epoch):
            copy = epoch.trial(OneLoss(names), epochs=length, indices=training)
            after[heads] = losses(copy)[heads]
        means = [sums[..., 0] / sums[..., 1] for sums in (before, after)]  # 0 / 0 is NaN
        return blend_weights(means[0], means[1], self.weights, form=self.form)

    def _trials(self, epoch: EpochView) -> list[tuple[list[int], tuple[str, ...]]]:
        """The heads that each trial is about, and the modalities of its loss."""
        names = epoch.modalities
        joint: list[tuple[list[int], tuple[str, ...]]] = [([0], ())]
        if self.together and isinstance(epoch.method.trunk, LateTrunk):
            return [*joint, (list(range(1, len(names) + 1)), names)]
        return joint + [([column + 1], (name,)) for column, name in enumerate(names)]

    def weigh(self, terms: Mapping[str, LossTerm], view: StepView) -> Mapping[str, LossTerm]:
        """The task's terms times the joint head's weight, and the weighted loss of each modality's head."""
        if self.weights is None or len(view.modalities) == 1 or not view.contested:
            return terms
        joint, *weights = self.weights.tolist()
        own = dict(zip(view.modalities, weights, strict=True))
        scaled = {
            name: term._replace(value=joint * term.value) if term.role == "task" else term
            for name, term in terms.items()
        }
        return added(scaled, {name: own[name] * loss for name, loss in view.own_head_losses().items()}, "own_head")

    def state_dict(self) -> dict[str, Any]:
        """The weights, which are also what an estimate without a gain falls back on."""
        return {"weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Balancer.load_state_dict`."""
        self.weights = state["weights"]


def summed_losses(epoch: EpochView, indices: Tensor, method: Method | None = None) -> Tensor:
    """`head_sums` over some positions of the training part and all processes.

    Args:
        epoch: See `EpochView`.
        indices: Positions.
        method: A copy; None for the model itself.
    """
    sums = torch.zeros(len(epoch.modalities) + 1, 2, dtype=torch.float64)
    model = epoch.method if method is None else method
    for batch, output in epoch.outputs(epoch.batches(indices), model):
        with epoch.looking(model):
            sums += head_sums(model, batch, output)
    return epoch.gather(sums[None]).sum(dim=0)


@hookimpl
def robustmm_register_balancers(register: Callable[[Component], None]) -> None:
    """Offer the strategy."""
    register(
        Component(
            name="g_blending",
            build=GBlending,
            options=GBlendingOptions,
            summary="Weigh the losses of the joint head and of a head per modality by how well they generalise.",
            source="Wang et al., CVPR 2020, arXiv:1905.12681; loss code facebookresearch/VMZ",
            fidelity="part",
            requires=frozenset({"unimodal_heads"}),
        )
    )
