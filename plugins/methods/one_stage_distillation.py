"""One-stage modality distillation: one modality in use, others in training alone, transfer and fusion learned together.

Source: One-stage Modality Distillation for Incomplete Multimodal Learning, arXiv:2309.08204 (abstract); parts from the
sibling work shicaiwei123/TGRS-MSHNet. A reconstruction: see `OneStageDistillation`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from robustmm import (
    Batch,
    Blueprint,
    Clock,
    Component,
    ConfigError,
    Evaluate,
    Features,
    FitContext,
    LossTerm,
    Method,
    Options,
    Output,
    RunFailed,
    did_you_mean,
    hookimpl,
    joint_maximum_mean_discrepancy,
    logit_distillation,
    soft_target_distillation,
)

from ._hallucination import HallucinationTrunk
from ._joint_adaptation import joint_adaptation, rows_of


class OneStageOptions(Options):
    """Options of one-stage modality distillation.

    In descriptions, [M] is read in the sibling code, [R] is a choice of this reconstruction.
    """

    available: str = Field(description="The modality that there is in use; all others are there in training alone.")
    teachers: dict[str, str] = Field(
        {}, description="Privileged modality -> checkpoint of a plain model of it alone; the others are trained first."
    )
    teacher_epochs: int | None = Field(None, ge=1, description="Epochs of a teacher; null means as many as the run.")
    adaptation: Literal["jan", "jmmd"] = Field(
        "jan",
        description="jan: discrepancy of features plus divergence of predictions [M]; jmmd: one discrepancy of both.",
    )
    mmd_weight: float = Field(2.0, ge=0, description="Weight of the discrepancy within the transfer loss. [M]: 1 or 2.")
    kl_weight: float = Field(
        1.0,
        ge=0,
        description="Weight of the divergence of predictions within the transfer loss; jan alone. [M]: 1 to 5.",
    )
    temperature: float = Field(2.0, gt=0, description="Of that divergence. [M]")
    num_kernels: int = Field(5, gt=0, description="Gaussian kernels of the discrepancy. [M]")
    positions: int = Field(
        1024, gt=1, description="Positions of a batch's maps that the discrepancy compares, drawn anew each step. [R]"
    )
    transfer_weight: float = Field(1.0, ge=0, description="Weight of the transfer loss; 0 needs no teacher. [R]")
    hallucination_weight: float = Field(
        1.0, ge=0, description="Weight of the task's loss of predictions from restored features. [R]"
    )
    consistency_weight: float = Field(
        1.0, ge=0, description="Weight of the distance of each stem's own prediction from the fused one. [M]"
    )
    cross_translation: bool = Field(
        True, description="Every translator reads every stem, with shared weights; false is an ablation."
    )
    two_stage: bool = Field(
        False,
        description="The older way, as a baseline: transfer first, then a fused head on frozen features, without cross "
        "translation.",
    )
    transfer_epochs: int | None = Field(
        None, ge=1, description="Epochs of the first of two stages; null means half of the run."
    )

    @classmethod
    def contract_example(cls) -> dict[str, Any]:
        """The first modality is the one in use."""
        return {"available": "m0"}


class OneStageDistillation(Method):
    """Features of modalities that will be missing, restored from the one that is there, and fused with it.

    A stem per modality reads the available modality; that of a privileged one is to hallucinate. Translators, one per
    modality, each read every stem with shared weights, and what a translator makes of all stems is averaged; these
    means side by side are what the fused head predicts from. A frozen teacher per privileged modality, a plain network
    of it alone, says what is to be restored.

    Terms: ``task``, of the fused prediction; ``consistency``, squared distance of the prediction from each stem alone
    to the fused one, with a gradient for both; ``hallucination``, the task's loss of a transfer head on restored
    features; ``transfer``, adaptation of restored features and their predictions to the teacher's. One backward pass
    for all of them, nothing is detached: what is restored also serves the fused prediction. That is the difference from
    two stages, which ``two_stage`` gives as a baseline.

    Samples without the available modality count in no loss, samples without a privileged one not in its transfer.
    Teachers see what the data have, whatever masks the run draws. With one modality the task's loss is left.

    Predictions depend on the available modality alone. Without it all logits are 0: combinations that lack it predict a
    constant, which evaluation reports as degenerate. Balancing has no place where one modality is read.

    A reconstruction: of the paper only the abstract was at hand, and no code of it is known. Tags: [A] the abstract,
    [M] the sibling code, [J] joint adaptation as published elsewhere, [R] a choice made here.
        [A] One optimisation of transfer and fusion; a joint adaptation network; cross translation by shared parameters.
        [M] The wiring of cross translation and which predictions are compared; discrepancy plus divergence, weights 2
            and 1, temperature 2, five kernels; a frozen teacher in evaluation mode; the student's own task loss.
        [J] ``adaptation: jmmd``.
        [R] The sum of terms and its weights; whole encoders as stems, and as translators a linear map with BatchNorm
            and ReLU at their last level; the transfer head on the restored feature; sampled positions in dense
            prediction; divergences by row, in regression the squared error of outputs; several privileged modalities
            averaged in ``hallucination`` and ``transfer``, added in ``consistency``; two stages as transfer with each
            stem's own loss, then a new head on frozen features.

    Args:
        blueprint: See `Blueprint`; kept, because teachers are built from it when training starts.
        available, teachers, teacher_epochs, adaptation, mmd_weight, kl_weight, temperature, num_kernels, positions,
            transfer_weight, hallucination_weight, consistency_weight, cross_translation, two_stage, transfer_epochs:
            See `OneStageOptions`.

    Raises:
        ConfigError: an option names a modality that is not there.
    """

    trunk: HallucinationTrunk

    def __init__(
        self,
        blueprint: Blueprint,
        *,
        available: str,
        teachers: Mapping[str, str] | None = None,
        teacher_epochs: int | None = None,
        adaptation: Literal["jan", "jmmd"] = "jan",
        mmd_weight: float = 2.0,
        kl_weight: float = 1.0,
        temperature: float = 2.0,
        num_kernels: int = 5,
        positions: int = 1024,
        transfer_weight: float = 1.0,
        hallucination_weight: float = 1.0,
        consistency_weight: float = 1.0,
        cross_translation: bool = True,
        two_stage: bool = False,
        transfer_epochs: int | None = None,
    ) -> None:
        names = [modality.name for modality in blueprint.modalities]
        _check_names(names, available, teachers or {})
        trunk = _make_trunk(blueprint, available, cross=cross_translation and not two_stage)
        super().__init__(blueprint, trunk=trunk, head=blueprint.make_head((*trunk.finer_channels, trunk.joint_width)))
        self._blueprint, self._teacher_paths, self._teacher_epochs = blueprint, dict(teachers or {}), teacher_epochs
        self.privileged = tuple(name for name in names if name != available)
        self.adaptation, self.mmd_weight, self.kl_weight = adaptation, mmd_weight, kl_weight
        self.temperature, self.num_kernels, self.positions = temperature, num_kernels, positions
        self.transfer_weight, self.hallucination_weight = transfer_weight, hallucination_weight
        self.consistency_weight = consistency_weight
        self.two_stage, self.transfer_epochs = two_stage and bool(self.privileged), transfer_epochs
        self.frozen = False
        needs_heads = hallucination_weight > 0 or transfer_weight > 0 or self.two_stage
        own = (*self.privileged, *([available] if self.two_stage else [])) if needs_heads else ()
        widths = {name: (*trunk.finer_channels, trunk.widths[name]) for name in own}
        self.own_heads = torch.nn.ModuleDict({name: blueprint.make_head(width) for name, width in widths.items()})
        self._teachers: dict[str, Method] = {}  # in a dict they are no part of weights, mode and optimiser

    def on_fit_start(self, fit: FitContext) -> None:
        """Train or load a teacher per privileged modality, then freeze it; without transfer there is none."""
        if self.transfer_weight == 0:
            return
        teachers = {name: Method(self._blueprint.alone(name)) for name in self.privileged}
        for name, teacher in teachers.items():
            teacher.to(next(self.parameters()).device)
            if name in self._teacher_paths:
                fit.load(self._teacher_paths[name], teacher)
            else:
                fit.train(f"teacher_{name}", teacher, epochs=self._teacher_epochs)
            teacher.eval().requires_grad_(False)
        self._teachers = teachers

    def readout(self, features: Features, fused: list[Tensor], presence: Tensor, size: tuple[int, ...]) -> Output:
        """See `Method.readout`."""
        levels = [*fused[:-1], self.trunk.joined(fused)]
        output = self.output(levels, presence, features, fused, size)
        output.logits = self.trunk.zero_without(output.logits, presence)
        return output

    def losses(self, output: Output, batch: Batch, clock: Clock) -> dict[str, LossTerm]:
        """See `Method.losses`; the task's term alone in evaluation mode and in the second of two stages."""
        keep = output.presence[:, self.trunk.column]
        first_of_two = self.two_stage and clock.epoch < self._first_epochs(clock)
        if not first_of_two:
            terms = {"task": LossTerm(self._task_loss(output.scales, batch.target, keep), "task")}
            if self.two_stage or not self.training or not self.privileged:
                return terms
            if self.consistency_weight > 0 and self.trunk.cross:
                loss = self._consistency(output, batch, keep)
                terms["consistency"] = LossTerm(self.consistency_weight * loss, "auxiliary")
        own = {name: self._own_logits(name, output, batch) for name in self.own_heads}
        losses = {name: self._task_loss(scales, batch.target, keep) for name, scales in own.items()}
        if first_of_two:
            terms = {"available": LossTerm(losses.pop(self.trunk.available), "task")}
        if self.hallucination_weight > 0:
            loss = torch.stack(list(losses.values())).mean()
            terms["hallucination"] = LossTerm(self.hallucination_weight * loss, "auxiliary")
        if self.transfer_weight > 0:
            moved = [self._transfer(name, own[name][0], output, batch, keep) for name in self.privileged]
            terms["transfer"] = LossTerm(self.transfer_weight * torch.stack(moved).mean(), "auxiliary")
        return terms

    def _first_epochs(self, clock: Clock) -> int:
        return clock.epochs // 2 if self.transfer_epochs is None else self.transfer_epochs

    def _task_loss(self, scales: Sequence[Tensor], target: Tensor, keep: Tensor) -> Tensor:
        """The task's loss of several logits over the kept samples."""
        losses = [self.task.subset_loss(one, self.task.at(target, tuple(one.shape[2:])), keep) for one in scales]
        return torch.stack(losses).sum()

    def _own_logits(self, name: str, output: Output, batch: Batch) -> list[Tensor]:
        """What a stem's own head makes of its levels and of the feature that it restores, with side outputs."""
        levels = [*output.features[name][:-1], self.trunk.restored(output.fused, name)]
        scales: list[Tensor] = self.own_heads[name].scales(levels, self.task.target_size(batch.target))  # type: ignore[operator]  # a Head
        return scales

    def _consistency(self, output: Output, batch: Batch, keep: Tensor) -> Tensor:
        """Squared distance of each stem's prediction through the fused head from the fused one, added up."""
        size = self.task.target_size(batch.target)
        apart = output.logits.new_zeros(len(keep), dtype=torch.float32)
        for name in self.modalities:
            logits = self.head([*output.fused[:-1], self.trunk.of_stem(output.fused, name)], size)
            apart = apart + (logits.float() - output.logits.float()).square().flatten(1).mean(dim=1)
        return (apart * keep).sum() / keep.sum().clamp_min(1)

    def _transfer(self, name: str, logits: Tensor, output: Output, batch: Batch, keep: Tensor) -> Tensor:
        """The transfer loss of one privileged modality, over the samples that have it and the available one."""
        column = self.modalities.index(name)
        teacher = self._teacher_on(name, logits.device)
        size = self.task.target_size(batch.target)
        with torch.no_grad():
            known = teacher({name: batch.inputs[name]}, batch.observed[:, column, None], size=size)
        both = keep & batch.observed[:, column].to(keep.device, non_blocking=True)
        restored, theirs = self.trunk.restored(output.fused, name), known.features[name][-1]
        if restored.dim() > 2 and theirs.shape[2:] != restored.shape[2:]:
            theirs = F.adaptive_avg_pool2d(theirs, (restored.shape[2], restored.shape[3]))
        features = rows_of(restored, both), rows_of(theirs, both)
        chosen = self._positions(features[0])
        features = features[0][chosen], features[1][chosen]
        if self.adaptation == "jmmd":
            grid = tuple(restored.shape[2:])
            likely = [rows_of(self._likely(one, grid), both)[chosen] for one in (logits, known.logits)]
            joint = joint_maximum_mean_discrepancy(*features, likely[0], likely[1], num_kernels=self.num_kernels)
            return self.mmd_weight * joint
        return joint_adaptation(
            features,
            (self._valid(logits, batch.target, both), self._valid(known.logits, batch.target, both)),
            logit_distillation
            if self.task.continuous
            else partial(soft_target_distillation, temperature=self.temperature),
            mmd_weight=self.mmd_weight,
            kl_weight=self.kl_weight,
            num_kernels=self.num_kernels,
        )

    def _positions(self, rows: Tensor) -> Tensor | slice:
        """Which rows the discrepancy compares: of positions of maps a few, of samples all."""
        if not self.task.dense:
            return slice(None)
        return torch.randperm(len(rows), device=rows.device)[: self.positions]

    def _valid(self, logits: Tensor, target: Tensor, keep: Tensor) -> Tensor:
        """The kept samples' logits by row, (R, C), without void ones."""
        rows = self.task.rows(logits, target)
        return rows.logits[keep[rows.sample]]

    def _likely(self, logits: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Class probabilities, or predicted quantities, at the size of the features."""
        values = logits.float() if self.task.continuous else logits.float().softmax(dim=1)
        return F.adaptive_avg_pool2d(values, (grid[0], grid[1])) if grid else values

    def _teacher_on(self, name: str, device: torch.device) -> Method:
        if name not in self._teachers:
            raise RunFailed(
                "one_stage_distillation has no teacher: on_fit_start, which trains or loads it, was not called"
            )
        teacher = self._teachers[name]
        if next(teacher.parameters()).device != device:
            teacher.to(device)  # the method was moved after training had been set up
        return teacher

    def on_epoch_end(self, evaluate: Evaluate, clock: Clock) -> None:
        """Freeze what the first of two stages has trained."""
        if self.two_stage and clock.epoch + 1 == self._first_epochs(clock):
            self._freeze()

    def _freeze(self) -> None:
        self.frozen = True
        for part in (self.trunk, self.own_heads):
            part.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> OneStageDistillation:
        """As of any module; what is frozen stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self._freeze()
        return self

    def deployable(self) -> Method:
        """Stems, translators and the fused head, shared with this method."""
        deployed = copy.copy(self)  # shares every other part
        deployed._modules = {**self._modules, "own_heads": torch.nn.ModuleDict(), "unimodal_heads": None}
        deployed._teachers = {}
        return deployed

    def method_state(self) -> dict[str, Any]:
        """Whether the first of two stages is over."""
        return {"frozen": self.frozen}

    def load_method_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `method_state` gave."""
        if state.get("frozen", False):
            self._freeze()


def _check_names(names: Sequence[str], available: str, teachers: Mapping[str, str]) -> None:
    known = f"(the run has {', '.join(names)})"
    if available not in names:
        raise ConfigError([f"method.available: no modality '{available}'{did_you_mean(available, names)} {known}"])
    privileged = [name for name in names if name != available]
    problems = [
        f"method.teachers.{name}: no privileged modality '{name}'{did_you_mean(name, privileged)} {known}"
        for name in teachers
        if name not in privileged
    ]
    if problems:
        raise ConfigError(problems)


def _make_trunk(blueprint: Blueprint, available: str, *, cross: bool) -> HallucinationTrunk:
    """Fresh stems of the available modality; translators as wide as the teachers' features."""
    names = [modality.name for modality in blueprint.modalities]
    widths = {name: blueprint.make_trunk(only=(name,), fused=False).feature_channels[name][-1] for name in names}
    stems = {name: blueprint.make_trunk(only=(available,), fused=False) for name in names}
    return HallucinationTrunk(available, stems, widths, dense=blueprint.task.dense, cross=cross)


@hookimpl
def robustmm_register_methods(register: Callable[[Component], None]) -> None:
    """Offer the method."""
    register(
        Component(
            name="one_stage_distillation",
            build=OneStageDistillation,
            options=OneStageOptions,
            summary="One modality in use: features of the others restored and fused in one stage; a reconstruction.",
            source="One-stage Modality Distillation, arXiv:2309.08204 (abstract); sibling shicaiwei123/TGRS-MSHNet",
            fidelity="rebuilt",
            requires=frozenset({"balancer:none"}),
        )
    )
