"""MMANet: distillation from a teacher that saw everything, and an extra loss on the weakest combinations.

Source: Wei et al., MMANet: Margin-aware Distillation and Modality-aware Regularization for Incomplete Multimodal
Learning, CVPR 2023, arXiv:2304.08028; code shicaiwei123/MMANet-CVPR2023.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from robustmm import (
    Batch,
    Blueprint,
    Clock,
    Combination,
    Component,
    ConfigError,
    Evaluate,
    FitContext,
    LossTerm,
    Method,
    Metrics,
    Options,
    Output,
    RunFailed,
    Task,
    combination_name,
    histogram_divergence,
    hookimpl,
    margin_aware_distillation,
    margin_weights,
    parse_combination,
)

from ._combination_set import CombinationSet, RegularisationForm, combination_loss, missing_one, with_subsets
from ._deployment import shared_blueprint
from ._warmup import warn_if_never_past

#: Largest grid whose positions are compared with each other in dense prediction; the release's value.
LARGEST_GRID = (30, 40)
#: Dense prediction distils the deepest levels: the release takes the context output and two of three skips.
DENSE_LEVELS = 3


class MMANetOptions(Options):
    """Options of MMANet; defaults are those of the released CASIA-SURF run unless a description says otherwise."""

    teacher: str | None = Field(
        None, description="Checkpoint of a plain model trained on complete samples; null trains one first."
    )
    teacher_epochs: int | None = Field(None, ge=1, description="Epochs of the teacher; null means as many as the run.")
    mad_weight: float = Field(
        30.0,
        ge=0,
        description="Weight of the margin-aware distillation; 0 is off. Released: 30 (CASIA-SURF, CeFA), 4 (NYUv2), "
        "10 (Cityscapes), 0.5 (audio-visual port).",
    )
    mad_axis: Literal["row", "column"] = Field(
        "row", description="Where the margin weights act; column is the released classification code."
    )
    mad_normalise: Literal["row", "halves"] = Field(
        "row",
        description="Whether rows of the similarity matrix have unit length as a whole, or each of their halves has, "
        "as in the released segmentation code.",
    )
    uncertainty: Literal["logits", "decoder"] = Field(
        "logits",
        description="What the margin weights are the entropy of: the teacher's logits, or, as in the released "
        "segmentation code, the channels that its decoder's first step gives; the latter needs head esanet_decoder.",
    )
    teacher_mode: Literal["eval", "train"] = Field(
        "eval",
        description="Mode of the frozen teacher; train is the released segmentation code, whose BatchNorm uses each "
        "batch's own statistics and lets the running ones drift.",
    )
    distill_levels: list[int] | None = Field(
        None,
        description="Fused levels to distil, negative counts from the deepest; null means the deepest one, and in "
        "dense prediction the three deepest, never the shallowest.",
    )
    mar_weight: float = Field(
        0.5,
        ge=0,
        description="Weight of the loss on weak combinations; 0 is off. Released: 0.5 (CASIA-SURF), 0.2 (NYUv2), 0.1 "
        "(Cityscapes).",
    )
    mar_form: RegularisationForm = Field(
        "masked",
        description="masked: loss of the weak samples; outer: the released broadcast, mean loss of all samples times "
        "the number of weak ones (about B/2 times larger: set the weight accordingly).",
    )
    mining_first: int = Field(2, ge=0, description="First epoch after which combinations are compared.")
    mining_last: int = Field(4, ge=0, description="Last epoch after which combinations are compared, included.")
    mining_smoothing: Literal["softmax", "none"] = Field(
        "softmax",
        description="Comparison of class histograms: through a softmax as released, or plain divergence. Without "
        "effect in dense prediction.",
    )
    warmup_epochs: int = Field(
        6, ge=1, description="Epochs of the task loss alone (0 to 5); then the weak combinations are chosen."
    )

    @model_validator(mode="after")
    def _mining_lies_in_the_warm_up(self) -> MMANetOptions:
        if self.mar_weight > 0 and not self.mining_first <= self.mining_last < self.warmup_epochs:
            raise ValueError(
                f"mining_first {self.mining_first} <= mining_last {self.mining_last} < warmup_epochs "
                f"{self.warmup_epochs} does not hold; combinations are compared during the warm-up"
            )
        return self


def grid_items(x: Tensor, size: Sequence[int]) -> Tensor:
    """Each position of each map as an item, after average pooling: (B, D, H, W) -> (B h w, D)."""
    pooled: Tensor = F.adaptive_avg_pool2d(x, (size[0], size[1]))
    return pooled.movedim(1, -1).flatten(0, -2)


def margin_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    teacher_logits: Tensor,
    axis: Literal["row", "column"],
    normalise: Literal["row", "halves"] = "row",
) -> Tensor:
    """Sum of the margin-aware distillation over levels, a scalar.

    In global prediction a sample is an item, a map flattened. In dense prediction every position of every sample is
    one, after average pooling to at most 30 x 40; the teacher's logits are pooled to the same grid.

    Args:
        student: Fused levels, (B, D) or (B, D, h, w).
        teacher: The same levels of the teacher.
        teacher_logits: (B, C), or (B, C, H, W) at any resolution; their entropy says how unsure the teacher is.
        axis, normalise: See `margin_aware_distillation`.
    """
    losses = []
    for own, theirs in zip(student, teacher, strict=True):
        if teacher_logits.dim() == 2:
            items = own.flatten(1), theirs.flatten(1), teacher_logits
        else:
            grid = [min(size, largest) for size, largest in zip(own.shape[2:], LARGEST_GRID, strict=True)]
            items = grid_items(own, grid), grid_items(theirs, grid), grid_items(teacher_logits, grid)
        weights = margin_weights(items[2])
        losses.append(margin_aware_distillation(items[0], items[1], weights, axis=axis, normalise=normalise))
    return torch.stack(losses).sum()


def drift(task: Task, combination: Metrics, complete: Metrics, smoothing: Literal["softmax", "none"]) -> float:
    """How far a combination's predictions are from those of the complete input, at least 0; 0 without predictions.

    In global prediction the divergence of the histograms of predicted classes; in dense prediction the squared
    difference of the task's score, mIoU.
    """
    if not combination.confusion.any():  # no held-out sample has any of its modalities
        return 0.0
    if task.dense:
        own, full = combination.compute()[task.score], complete.compute()[task.score]
        return 0.0 if own is None or full is None else (own - full) ** 2
    # The last column of a confusion matrix counts predictions that are no class.
    histograms = [metrics.confusion[:, :-1].sum(dim=0).double() for metrics in (combination, complete)]
    return float(histogram_divergence(histograms[0], histograms[1], smoothing=smoothing))


class MMANet(Method):
    """A deployment network under masks, a frozen teacher on complete samples, a head for weak combinations.

    Terms: ``task`` always; from epoch ``warmup_epochs`` also ``mad``, margin-aware distillation of the fused levels,
    and ``mar``, modality-aware regularisation: the loss of a second head on samples that show a weak combination.

    After each of the epochs ``mining_first`` to ``mining_last`` the held-out part is evaluated on the complete input
    and on every combination that misses one modality; the one whose predictions drift most, summed over these epochs,
    is weak at the end of the warm-up, with all its non-empty subsets.

    The teacher is a plain network from the same blueprint. It is no sub-module: its weights are in no checkpoint of
    this method, no optimiser sees it, and `train` does not reach it. In rows whose data really lack a modality it sees
    what was observed, so it is complete with respect to the data.

    Where the release and the paper's intention differ, the intention is the default:
        MAR: the released classification code multiplies a mask (B, 1, 1, 1) by losses (B,), which singles out no
            combination: ``mar_form``.
        MAD: margin weights act on rows; the released classification code puts them on columns: ``mad_axis``.
        Uncertainty: from the teacher's logits; the released segmentation code reads 512 channels of a feature:
            ``uncertainty``.
        Similarities: rows of unit length as a whole; the released segmentation code normalises two halves of each:
            ``mad_normalise``.
        Teacher: in evaluation mode; in the released segmentation code it trains on, without gradients, and its
            BatchNorm statistics drift: ``teacher_mode``.
        Mining: on the held-out part of training; released NYUv2 runs use the test split.
        Epoch 0: trains; the released classification code skips it.
    Deviation: the second head reads the fused levels through a head of the configured kind, where the release copies
    the shared trunk behind the fusion as well; here trunks share nothing behind the fusion.

    With one modality there is no combination to be weak, and MAR is off.

    Args:
        blueprint: See `Blueprint`; kept, because the teacher is built from it when training starts.
        teacher, teacher_epochs, mad_weight, mad_axis, mad_normalise, uncertainty, teacher_mode, distill_levels,
            mar_weight, mar_form, mining_first, mining_last, mining_smoothing, warmup_epochs: See `MMANetOptions`.
    """

    sampler = "uniform"

    def __init__(
        self,
        blueprint: Blueprint,
        *,
        teacher: str | None = None,
        teacher_epochs: int | None = None,
        mad_weight: float = 30.0,
        mad_axis: Literal["row", "column"] = "row",
        mad_normalise: Literal["row", "halves"] = "row",
        uncertainty: Literal["logits", "decoder"] = "logits",
        teacher_mode: Literal["eval", "train"] = "eval",
        distill_levels: list[int] | None = None,
        mar_weight: float = 0.5,
        mar_form: RegularisationForm = "masked",
        mining_first: int = 2,
        mining_last: int = 4,
        mining_smoothing: Literal["softmax", "none"] = "softmax",
        warmup_epochs: int = 6,
    ) -> None:
        super().__init__(blueprint)
        self._blueprint = blueprint
        self._teacher_path, self._teacher_epochs = teacher, teacher_epochs
        self.mad_weight, self.mad_axis, self.mad_normalise = mad_weight, mad_axis, mad_normalise
        self.unsure_of, self.teacher_mode = uncertainty, teacher_mode
        if uncertainty == "decoder" and not hasattr(self.head, "first_step"):
            raise ConfigError(
                ["method.uncertainty: decoder needs a head that gives its first step, such as esanet_decoder"]
            )
        self.mar_weight, self.mar_form = mar_weight, mar_form
        self.mining_epochs = range(mining_first, mining_last + 1)
        self.mining_smoothing, self.warmup_epochs = mining_smoothing, warmup_epochs
        self.levels = self._chosen_levels(distill_levels)
        self.weak = CombinationSet(self.modalities)
        self.drifts: dict[Combination, float] = {}
        self._teacher: Method | None
        object.__setattr__(self, "_teacher", None)
        regularised = mar_weight > 0 and len(self.modalities) > 1
        self.regularisation_head = blueprint.make_head(self.trunk.fused_channels) if regularised else None

    def _chosen_levels(self, wanted: list[int] | None) -> list[int]:
        count = len(self.trunk.fused_channels)
        if wanted is None:
            first = max(1, count - DENSE_LEVELS) if self.task.dense else count - 1
            return list(range(min(first, count - 1), count))
        for level in wanted:
            if not -count <= level < count:
                raise ConfigError(
                    [f"method.distill_levels: level {level} is not there; the trunk has {count} fused level(s)"]
                )
        return wanted

    def on_fit_start(self, fit: FitContext) -> None:
        """Train or load the teacher, then freeze it; without distillation there is none."""
        if self.mad_weight == 0:
            return
        teacher = Method(self._blueprint).to(next(self.parameters()).device)
        if self._teacher_path is None:
            fit.train("teacher", teacher, epochs=self._teacher_epochs)
        else:
            fit.load(self._teacher_path, teacher)
        # Past nn.Module's registration: weights, mode and optimiser of this method must not include the teacher.
        object.__setattr__(self, "_teacher", teacher.train(self.teacher_mode == "train").requires_grad_(False))

    def losses(self, output: Output, batch: Batch, clock: Clock) -> dict[str, LossTerm]:
        """See `Method.losses`; the task term alone during the warm-up, and in evaluation mode."""
        terms = super().losses(output, batch, clock)
        warn_if_never_past("mmanet", self.warmup_epochs, "everything beyond the task's loss", clock)
        if clock.epoch < self.warmup_epochs or not self.training:
            return terms
        if self.mad_weight > 0:
            terms["mad"] = LossTerm(self.mad_weight * self._distillation(output, batch), "auxiliary")
        if self.regularisation_head is not None and self.weak.combinations:
            scales = self.regularisation_head.scales(output.fused, self.task.target_size(batch.target))
            keep = self.weak.contains(output.presence)
            loss = combination_loss(self.task, scales, batch.target, keep, self.mar_form)
            terms["mar"] = LossTerm(self.mar_weight * loss, "auxiliary")
        return terms

    def _distillation(self, output: Output, batch: Batch) -> Tensor:
        teacher: Any = self._teacher_on(output.logits.device)
        with torch.no_grad():
            known = teacher(batch.inputs, batch.observed, size=self.task.target_size(batch.target))
            unsure = known.logits if self.unsure_of == "logits" else teacher.head.first_step(known.fused)
        student = [output.fused[level] for level in self.levels]
        theirs = [known.fused[level] for level in self.levels]
        return margin_loss(student, theirs, unsure, self.mad_axis, self.mad_normalise)

    def _teacher_on(self, device: torch.device) -> Method:
        if self._teacher is None:
            raise RunFailed("mmanet has no teacher: on_fit_start, which trains or loads it, was not called")
        if next(self._teacher.parameters()).device != device:
            self._teacher.to(device)  # the method was moved after training had been set up
        return self._teacher

    def on_epoch_end(self, evaluate: Evaluate, clock: Clock) -> None:
        """Compare combinations during the mining epochs; choose the weak ones once, at the end of the warm-up."""
        candidates = missing_one(self.modalities)
        if self.regularisation_head is None:
            return
        if clock.epoch in self.mining_epochs:
            scores = evaluate([*candidates, self.modalities])
            for combination in candidates:
                drifted = drift(self.task, scores[combination], scores[self.modalities], self.mining_smoothing)
                self.drifts[combination] = self.drifts.get(combination, 0.0) + drifted
        if clock.epoch == self.warmup_epochs - 1 and self.drifts:
            self.weak.replace(with_subsets(max(candidates, key=lambda combination: self.drifts[combination])))

    def deployable(self) -> Method:
        """Trunk and head as a plain method, shared with this one."""
        deployed = Method(shared_blueprint(self, self._blueprint.modalities))
        deployed.training = self.training
        return deployed

    def method_state(self) -> dict[str, Any]:
        """Summed drifts and the weak combinations."""
        drifts = {combination_name(combination): value for combination, value in self.drifts.items()}
        return {"drifts": drifts, "weak": self.weak.names}

    def load_method_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `method_state` gave."""
        if not state:
            return
        self.drifts = {parse_combination(text, self.modalities): value for text, value in state["drifts"].items()}
        self.weak.replace(parse_combination(text, self.modalities) for text in state["weak"])


@hookimpl
def robustmm_register_methods(register: Callable[[Component], None]) -> None:
    """Offer the method."""
    register(
        Component(
            name="mmanet",
            build=MMANet,
            options=MMANetOptions,
            summary="Distillation from a teacher on complete samples, extra loss on the weakest combinations.",
            source="Wei et al., CVPR 2023, arXiv:2304.08028; code shicaiwei123/MMANet-CVPR2023",
            fidelity="code",
            requires=frozenset({"class_probability"}),
        )
    )
