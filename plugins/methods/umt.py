"""UMT: joint training that holds each encoder to what a network of its modality alone has learnt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from robustmm import (
    Batch,
    Blueprint,
    Clock,
    Component,
    ConfigError,
    FitContext,
    LossTerm,
    Method,
    Options,
    Output,
    RunFailed,
    did_you_mean,
    full_precision,
    hookimpl,
)

from ._deployment import shared_blueprint


class UMTOptions(Options):
    """Options of UMT."""

    distill_weight: float = Field(
        10.0,
        ge=0,
        description="Weight of the sum of the squared distances to the teachers' features; 0 is joint training without "
        "teachers. The paper's value is not known; 10 is BalanceBenchmark's, 1 to 100 are worth a try.",
    )
    levels: Literal["last", "all"] = Field(
        "last", description="Which levels of an encoder are held to the teacher's; of one vector there is one."
    )
    teacher_epochs: int | None = Field(
        None, ge=1, description="Epochs of each teacher; null means as many as the run itself."
    )
    teachers: Mapping[str, str] = Field(
        default_factory=dict,
        description="Modality to a checkpoint of a network of it alone, such as a run's teacher_<modality>/"
        "best.safetensors; the others are trained first.",
    )


def masked_mse(student: Tensor, teacher: Tensor, present: Tensor) -> Tensor:
    """Squared distance of the teacher's features from the student's, mean over elements and over the present rows.

    Args:
        student: (R, ...).
        teacher: Likewise; receives no gradient.
        present: (R,) bool.

    Returns:
        Scalar, float32; 0 without a row. Nothing of an absent row reaches it or a gradient, NaN included.
    """
    with full_precision(student, teacher.detach()) as (student, teacher):
        keep = present.view(-1, *[1] * (student.dim() - 1))
        squared = (student - teacher).where(keep, student.new_zeros(())).square()
        return squared.flatten(1).mean(dim=1).sum() / present.sum().clamp_min(1)


class UMT(Method):
    """A joint network whose encoders are held to the features of frozen teachers, one network per modality.

    Before training, each teacher is trained by the run's recipe on its modality, and its best epoch on validation is
    kept. Teacher and student read the same augmented inputs; the teachers are in evaluation mode, and no sub-modules:
    their weights are in no checkpoint of this method and no optimiser sees them. In use there is the student alone.

    Terms: ``task``, and ``distill/<modality>``, the mean squared distance of the features that the encoder gives before
    any fusion, over the samples that show the modality to the student.

    Teachers are built from the same blueprint, so that widths agree and no projection between them is needed.

    Source:
        UMT (ICML 2023, arXiv:2305.01233, first arXiv:2106.11059). No code was released by the authors; BalanceBenchmark
        has a port, whose teachers stay in training mode, with dropout and drifting BatchNorm: here they do not.

    Args:
        blueprint: See `Blueprint`; kept, because the teachers are built from it when training starts.
        distill_weight, levels, teacher_epochs, teachers: See `UMTOptions`.

    Raises:
        ConfigError: ``teachers`` names a modality that the run does not have.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        *,
        distill_weight: float = 10.0,
        levels: Literal["last", "all"] = "last",
        teacher_epochs: int | None = None,
        teachers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(blueprint)
        self._blueprint = blueprint
        self._teacher_paths, self._teacher_epochs = dict(teachers or {}), teacher_epochs
        self._refuse_other_names()
        self.distill_weight = distill_weight
        self.levels = slice(-1, None) if levels == "last" else slice(None)
        self._teachers: dict[str, Method]
        self._keep_teachers({})

    def _refuse_other_names(self) -> None:
        problems = [
            f"method.teachers.{name}: no modality '{name}'{did_you_mean(name, self.modalities)} "
            f"(the run has {', '.join(self.modalities)})"
            for name in self._teacher_paths
            if name not in self.modalities
        ]
        if problems:
            raise ConfigError(problems)

    def _keep_teachers(self, teachers: dict[str, Method]) -> None:
        # Past nn.Module's registration: weights, mode and optimiser of this method must not include the teachers.
        object.__setattr__(self, "_teachers", teachers)

    def on_fit_start(self, fit: FitContext) -> None:
        """Train or load the teachers, then freeze them; without distillation there are none."""
        if self.distill_weight == 0:
            return
        device = next(self.parameters()).device
        teachers = {name: Method(self._blueprint.alone(name)).to(device) for name in self.modalities}
        for name, teacher in teachers.items():
            if name in self._teacher_paths:
                fit.load(self._teacher_paths[name], teacher)
            else:
                fit.train(f"teacher_{name}", teacher, epochs=self._teacher_epochs)
            teacher.eval().requires_grad_(False)
        self._keep_teachers(teachers)

    def losses(self, output: Output, batch: Batch, clock: Clock) -> dict[str, LossTerm]:
        """See `Method.losses`; the task term alone in evaluation mode."""
        terms = super().losses(output, batch, clock)
        if self.distill_weight == 0 or not self.training:
            return terms
        for column, name in enumerate(self.modalities):
            teacher = self._teacher(name, output.logits.device)
            own_batch, present = batch.only([name]), output.presence[:, column]
            with torch.no_grad():
                known, _ = teacher.trunk(own_batch.inputs, own_batch.observed)
            pairs = zip(output.features[name][self.levels], known[name][self.levels], strict=True)
            loss = torch.stack([masked_mse(own, theirs, present) for own, theirs in pairs]).sum()
            terms[f"distill/{name}"] = LossTerm(self.distill_weight * loss, "auxiliary")
        return terms

    def _teacher(self, name: str, device: torch.device) -> Method:
        if name not in self._teachers:
            raise RunFailed("umt has no teachers: on_fit_start, which trains or loads them, was not called")
        teacher = self._teachers[name]
        if next(teacher.parameters()).device != device:
            teacher.to(device)  # the method was moved after training had been set up
        return teacher

    def deployable(self) -> Method:
        """Trunk and head as a plain method, shared with this one."""
        deployed = Method(shared_blueprint(self, self._blueprint.modalities))
        deployed.training = self.training
        return deployed


@hookimpl
def robustmm_register_methods(register: Callable[[Component], None]) -> None:
    """Offer the method."""
    register(
        Component(
            name="umt",
            build=UMT,
            options=UMTOptions,
            summary="Joint training that holds each encoder to the features of a teacher of its modality alone.",
            source="Du et al., ICML 2023, arXiv:2305.01233; port in GeWu-Lab/BalanceBenchmark",
            fidelity="part",
            requires=frozenset({"separate_encoders"}),
        )
    )
