"""All that a balancer sees of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from robustmm.balancing.statistics import true_class_sums
from robustmm.errors import RunFailed
from robustmm.methods.method import Method
from robustmm.methods.probes import UnimodalLogits, alone_masks, subset_logits, unimodal_logits
from robustmm.models.rows import rows_to_run
from robustmm.seeding import generator_for
from robustmm.types import Batch, Clock, LossTerm, Output

#: Gradients that are kept apart from the parameters' own.
Apart = dict[nn.Parameter, Tensor]


@dataclass
class StepView:
    """One batch of an update, as a balancer sees it.

    An update is made of one batch, or of several whose gradients are accumulated. Scores count all batches of the
    update so far and all processes, so that every process and every batch leads to the same coefficients.

    Args:
        method: The method in training.
        batch: On the run's device.
        shown: (B, M) bool on the CPU: what this step shows of the batch.
        clock: Where training stands.
        groups: Modality -> the encoder parameters that it owns.
        run_backward: ``run_backward(loss, retain_graph=False, inputs=None)``, with gradient scaling where precision
            asks for it.
        all_reduce: Sum of a tensor over processes; the tensor itself where there is one process.
        processes: How many there are.
        seed: The run's seed.
        whole: (N, M) bool on the CPU: what all batches of the update show in this process; None where it is one batch.
        earlier: The view of the batch before this one in the same update.
        apart: See `backward_apart`; shared by the views of an update.

    Attributes:
        output: Of the forward pass that this step trains; set once that is done. After backward without its graph.
    """

    method: Method
    batch: Batch
    shown: Tensor
    clock: Clock
    groups: Mapping[str, Sequence[nn.Parameter]]
    run_backward: Callable[..., None]
    all_reduce: Callable[[Tensor], Tensor] = field(default=lambda tensor: tensor)
    processes: int = 1
    seed: int = 0
    whole: Tensor | None = None
    earlier: StepView | None = None
    apart: Apart = field(default_factory=dict)
    output: Output = None  # type: ignore[assignment]  # there is none before the forward pass

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names in column order."""
        return self.batch.modalities

    @cached_property
    def presence(self) -> Tensor:
        """(B, M) bool on the device: what this step shows."""
        return self.shown.to(self.batch.target.device, non_blocking=True)

    @property
    def share(self) -> float:
        """What this batch counts of the update, by samples: 1 without accumulation."""
        return 1.0 if self.whole is None else len(self.shown) / len(self.whole)

    @property
    def parts(self) -> list[StepView]:
        """The views of the update's batches up to this one."""
        return [*(self.earlier.parts if self.earlier else ()), self]

    @cached_property
    def rows_shown(self) -> Tensor:
        """(M,) float32: samples of the whole update, over all processes, that show each modality."""
        if self.earlier is not None:
            return self.earlier.rows_shown
        counts = (self.shown if self.whole is None else self.whole).sum(dim=0)
        return self.all_reduce(counts.to(self.batch.target.device, torch.float32))

    @cached_property
    def contested(self) -> bool:
        """Whether a sample of the update, in any process, shows two modalities; else there is nothing to balance."""
        if self.earlier is not None:
            return self.earlier.contested
        here = ((self.shown if self.whole is None else self.whole).sum(dim=1) > 1).any()
        if self.processes == 1:  # known without a word from the device
            return bool(here)
        return bool(self.all_reduce(here.to(self.batch.target.device, torch.float32)) > 0)

    @property
    def shared(self) -> list[nn.Parameter]:
        """Parameters that train and belong to no encoder: fusion, heads, and what a method adds."""
        owned = {id(parameter) for parameters in self.groups.values() for parameter in parameters}
        return [p for p in self.method.parameters() if p.requires_grad and id(p) not in owned]

    @property
    def encoders(self) -> list[nn.Parameter]:
        """Parameters of all encoders that train."""
        return [p for parameters in self.groups.values() for p in parameters if p.requires_grad]

    def backward(self, loss: Tensor, *, only: Sequence[nn.Parameter] | None = None, retain_graph: bool = False) -> None:
        """Add the gradients of a loss.

        Args:
            loss: Scalar, a mean over this batch.
            only: Parameters that get gradients, and no other; None means all.
            retain_graph: Whether another backward pass through the same graph follows.
        """
        if only is not None and not only:
            return
        scaled = loss if self.whole is None else loss * self.share
        if scaled.requires_grad:
            self.run_backward(scaled, retain_graph=retain_graph, inputs=None if only is None else list(only))

    def backward_apart(self, loss: Tensor, parameters: Sequence[nn.Parameter], *, retain_graph: bool = False) -> None:
        """Add the gradients of a loss to `apart` instead of to the parameters' own; others get none.

        Like the others they are complete, reduced and unscaled when `Balancer.modulate_gradients` is called.
        """
        own = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        self.backward(loss, only=parameters, retain_graph=retain_graph)
        for parameter, kept in zip(parameters, own, strict=True):
            found, parameter.grad = parameter.grad, kept
            if found is not None:
                self.apart[parameter] = found if parameter not in self.apart else self.apart[parameter] + found

    @cached_property
    def unimodal(self) -> UnimodalLogits:
        """Each modality's own logits without gradient, computed once a step; see `robustmm.methods.probes`."""
        with torch.no_grad():
            logits = unimodal_logits(self.method, self.output, self.batch.inputs)
        assert logits is not None  # inputs are at hand
        return logits

    def true_class_probability(self, *, complete_rows: bool = False) -> Tensor:
        """Mean softmax probability that each modality alone gives to the true class, over the update and all processes.

        Args:
            complete_rows: Compare on rows in which every modality is present, instead of each on its own rows.

        Returns:
            (M,) float32; NaN for a modality without a row.
        """
        score, count = self.all_reduce(torch.stack([part._class_sums(complete_rows) for part in self.parts]).sum(dim=0))
        return torch.where(count > 0, score / count.clamp_min(1), torch.nan)

    def _class_sums(self, complete_rows: bool) -> Tensor:
        presence = self.presence & self.presence.all(dim=1, keepdim=True) if complete_rows else self.presence
        return true_class_sums(self.method.task, self.unimodal.logits, self.batch.target, presence)

    def subset_logits(self, masks: Sequence[Tensor]) -> list[Tensor]:
        """Logits from parts of what is shown, with gradient; no statistic of the model changes.

        Args:
            masks: (B, M) bool each, on the device.
        """
        logits = subset_logits(self.method, self.output, masks, self.batch.inputs)
        assert logits is not None  # inputs are at hand
        return logits

    @cached_property
    def alone_logits(self) -> dict[str, Tensor]:
        """Each modality's logits through the model's own fusion and head, all others hidden; computed once a step.

        With gradient until backward is done. Rows in which the modality is absent mean nothing.
        """
        return dict(zip(self.modalities, self.subset_logits(alone_masks(self.presence)), strict=True))

    def shared_head_losses(self) -> dict[str, Tensor]:
        """The task's loss of each modality's `alone_logits`.

        Returns:
            Modality -> scalar with gradient, see `mean_over_update`; those that no sample of this batch shows are left
            out.
        """
        losses = {}
        for column, (name, own) in enumerate(self.alone_logits.items()):
            if self.shown[:, column].any():
                loss = self.method.task.subset_loss(own, self.batch.target, self.presence[:, column])
                losses[name] = self.mean_over_update(loss, column)
        return losses

    def own_head_losses(self) -> dict[str, Tensor]:
        """The task's loss of each modality through a head of its own, which a balancer asks for by requiring
        ``unimodal_heads``; returns as `shared_head_losses`.

        Raises:
            RunFailed: the method has no such heads.
        """
        heads = self.method.unimodal_heads
        if heads is None:
            raise RunFailed("the balancer trains a head per modality: its component must require 'unimodal_heads'")
        size = self.method.task.target_size(self.batch.target)
        losses = {}
        for column, name in enumerate(self.modalities):
            if not self.shown[:, column].any():
                continue
            levels, target, keep = self.output.features[name], self.batch.target, self.presence[:, column]
            rows = rows_to_run(self.shown[:, column], training=True)
            if rows is not None:
                rows = rows.to(target.device, non_blocking=True)
                levels, target, keep = [level[rows] for level in levels], target[rows], keep[rows]
            loss = self.method.task.subset_loss(heads[name](levels, size), target, keep)
            losses[name] = self.mean_over_update(loss, column)
        return losses

    def alone_losses(self) -> Tensor:
        """Mean of the task's loss of each modality's `alone_logits`, over the update so far and all processes.

        Without gradient; it may be asked for in any member, `modulate_gradients` included.

        Returns:
            (M,) float32; NaN for a modality that no sample shows.
        """
        with torch.no_grad():
            sums = torch.stack([part._alone_sums() for part in self.parts]).sum(dim=0)
        loss, count = self.all_reduce(sums)
        return torch.where(count > 0, loss / count.clamp_min(1), torch.nan)

    def _alone_sums(self) -> Tensor:
        """(2, M): summed losses, and samples that show each modality."""
        task, target = self.method.task, self.batch.target
        losses = [task.sample_losses(own.float(), target) for own in self.alone_logits.values()]
        shown = torch.stack(losses, dim=1).float().masked_fill(~self.presence, 0.0)
        return torch.stack([shown.sum(dim=0), self.presence.sum(dim=0).float()])

    def scale_gradients(self, factors: Tensor) -> None:
        """Multiply the gradients of each modality's encoder by its factor (M,), on the device; NaN counts as 1."""
        for name, factor in zip(self.modalities, factors.nan_to_num(1.0).unbind(), strict=True):
            gradients = [parameter.grad for parameter in self.groups[name] if parameter.grad is not None]
            if gradients:
                torch._foreach_mul_(gradients, factor.to(gradients[0].dtype))

    def release_graph(self) -> None:
        """Keep the values alone, once backward is done: scores may still ask for them, and their graph is spent."""
        self.output = self.output.detached()
        if "alone_logits" in self.__dict__:
            self.alone_logits = {name: own.detach() for name, own in self.alone_logits.items()}

    def mean_over_update(self, loss: Tensor, column: int) -> Tensor:
        """Let a mean over this batch's rows of a modality count as its share of the mean over the whole update.

        Batches and processes that show a modality more often count more; with one of each it is the loss itself.
        """
        rows = self.presence[:, column].sum()
        return loss * (rows * (self.processes / self.share) / self.rows_shown[column].clamp_min(1))

    def generator(self, purpose: str) -> torch.Generator:
        """A generator on the run's device, seeded from (seed, step, purpose): the same on every rank, new each step."""
        return generator_for(self.seed, self.clock.step, purpose, device=self.batch.target.device)


def added(terms: Mapping[str, LossTerm], losses: Mapping[str, Tensor], prefix: str) -> dict[str, LossTerm]:
    """Terms with one more of role ``task`` for each modality, named ``<prefix>/<modality>``.

    Raises:
        RunFailed: the method has a term of that name.
    """
    more = {f"{prefix}/{name}": LossTerm(loss, "task") for name, loss in losses.items()}
    for name in more:
        if name in terms:
            raise RunFailed(f"the balancer adds a loss term '{name}', and there is one; give its own another prefix")
    return {**terms, **more}
