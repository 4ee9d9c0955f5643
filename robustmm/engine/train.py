"""The training loop: epochs of steps, validation, selection, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from robustmm import distributed
from robustmm.balancing.balancer import Balancer, EpochPlan
from robustmm.balancing.epoch import EpochView
from robustmm.data.loaders import PartLoader, in_groups
from robustmm.engine import checkpoint
from robustmm.engine.callbacks import Callback
from robustmm.engine.evaluate import evaluate_combinations
from robustmm.engine.interrupt import Interrupt
from robustmm.engine.optim import apply_schedule, scheduled_step
from robustmm.engine.recipe import Recipe
from robustmm.engine.scores import Summary, directions_of, summarise
from robustmm.engine.selection import Selection
from robustmm.engine.step import StepContext, train_step
from robustmm.engine.trial import run_trial
from robustmm.engine.watch import LossWatch
from robustmm.errors import CheckpointError, RunFailed
from robustmm.masks import CombinationSampler
from robustmm.methods.method import Method
from robustmm.metrics.metric import Metric
from robustmm.seeding import generator_for, seed_torch
from robustmm.tasks.task import Metrics
from robustmm.types import Batch, Clock, Combination


@dataclass
class Trainer:
    """Trains one method.

    Args:
        method: On the device already.
        balancer: How the optimiser sees the losses.
        sampler: Which combination each sample shows.
        train: Training batches.
        validation: For selection and mining; never the test part.
        recipe: The numbers.
        fabric: Launched.
        folder: Where ``last.safetensors`` and ``best.safetensors`` go.
        callbacks: Told on the first process alone.
        extra: Makes fresh plugin metrics.
        combinations: What validation looks at; None means all.
        interrupt: Asks for a stop after the current step.
    """

    method: Method
    balancer: Balancer
    sampler: CombinationSampler
    train: PartLoader
    validation: PartLoader
    recipe: Recipe
    fabric: Fabric
    folder: Path
    callbacks: Sequence[Callback] = ()
    extra: Callable[[], Mapping[str, Metric]] = dict
    combinations: list[Combination] | None = None
    interrupt: Interrupt = field(default_factory=Interrupt)

    def __post_init__(self) -> None:
        recipe = self.recipe
        self.selection = Selection(recipe.select_metric, recipe.select_mode, recipe.patience, recipe.min_delta)
        optimizer = recipe.make_optimizer([p for p in self.method.parameters() if p.requires_grad])
        steps = self._updates_of(self.train.steps_per_epoch())
        self.schedule = recipe.make_schedule(recipe.epochs, steps)
        self.context = StepContext(
            fabric=self.fabric,
            method=self.method,
            balancer=self.balancer,
            optimizer=cast(Optimizer, self.fabric.setup_optimizers(optimizer)),
            groups=self.method.trunk.parameter_groups(),
            clip_norm=recipe.clip_norm,
            seed=recipe.seed,
            clock=Clock(epoch=0, step=0, epochs=recipe.epochs, steps_per_epoch=steps),
        )
        self.watch = LossWatch(self.method.modalities, every_step=self.fabric.device.type == "cpu")
        self.finished = False
        self._batches_done = 0  # of the current epoch
        self._plan = EpochPlan()  # the balancer's choice for the current epoch

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.folder / "last.safetensors"

    @property
    def best(self) -> Path:
        """The weights that selection picked."""
        return self.folder / "best.safetensors"

    def fit(self) -> None:
        """Train to the end, to early stop, or to an interrupt.

        Raises:
            RunFailed: a loss is not finite, or no validation gave a finite score.
            KeyboardInterrupt: asked to stop; a checkpoint was written.
        """
        distributed.broadcast_module(self.method)
        self.method.train()
        while not self.finished and self.context.clock.epoch < self.recipe.epochs:
            self._run_epoch()
        if self._stop_requested():  # during the last validation, after which no step follows
            raise KeyboardInterrupt
        self._refuse_nothing_kept()

    def dry_step(self) -> None:
        """One step on the first batch, without a trace in files.

        Raises:
            RunFailed: a loss is not finite.
        """
        self.method.train()
        self._step([next(self.train.training(0))])
        self.watch.look()

    def _run_epoch(self) -> None:
        clock = self.context.clock
        if self._batches_done == 0:  # an epoch resumed in the middle keeps the choice it began with
            self._plan = self._planned(self.balancer.on_epoch_start(self._epoch_view()))
        plan = self._plan
        batches = self.train.training(clock.epoch, start=self._batches_done, indices=plan.indices, keep=plan.keep)
        started, seen = time.perf_counter(), 0
        for group in in_groups(batches, self.recipe.accumulate):
            self._step(group)
            seen += sum(map(len, group))
            if self.context.clock.step % self.recipe.log_every == 0:
                self._log(seen / (time.perf_counter() - started))
                started, seen = time.perf_counter(), 0
            if self._must_stop():
                self.watch.look()
                distributed.average_buffers(self.method)
                self.save()
                raise KeyboardInterrupt
        self.watch.look()
        self._finish_epoch()

    def _planned(self, plan: EpochPlan | None) -> EpochPlan:
        """What a balancer wants of the epoch, on the CPU.

        Raises:
            RunFailed: it cannot be had.
        """
        if plan is None:
            return EpochPlan()
        who = f"on_epoch_start of {type(self.balancer).__name__}"
        if not isinstance(plan, EpochPlan):
            raise RunFailed(f"{who} gave {type(plan).__name__}; it must give a robustmm.EpochPlan or None")
        indices, keep = (None if one is None else one.cpu() for one in (plan.indices, plan.keep))
        samples = len(self.train.part)
        wanted = torch.arange(samples) if indices is None else indices
        if wanted.dtype != torch.int64 or wanted.dim() != 1 or not len(wanted):
            raise RunFailed(f"{who}: indices must be int64 (N,), got {wanted.dtype} {tuple(wanted.shape)}")
        outside = wanted[(wanted < 0) | (wanted >= samples)]
        if len(outside):
            raise RunFailed(
                f"{who}: {len(outside)} indices are no positions 0 to {samples - 1}, the first is {int(outside[0])}"
            )
        shape = (len(wanted), len(self.method.modalities))
        if keep is not None and (keep.dtype != torch.bool or keep.shape != shape):
            of = "every sample, as indices is None" if indices is None else "each of the indices"
            raise RunFailed(f"{who}: keep must be bool {shape}, for {of}; got {keep.dtype} {tuple(keep.shape)}")
        return EpochPlan(indices, keep)

    def _step(self, batches: Sequence[Batch]) -> None:
        clock, seed = self.context.clock, self.recipe.seed
        rank = distributed.rank()
        seed_torch(seed, clock.step, rank)
        masks = generator_for(seed, "masks", clock.step, rank)
        presence = torch.cat([self.sampler(batch.offered, masks) for batch in batches])
        apply_schedule(self.context.optimizer, self.schedule, self._scheduled_step())
        terms = train_step(self.context, [batch.to(self.fabric.device) for batch in batches], presence)
        self.watch.add(clock, terms, presence)
        self.context.clock = replace(clock, step=clock.step + 1)
        self._batches_done += len(batches)
        self._tell("on_step", self.context.clock.step, clock.epoch)

    def _updates_of(self, batches: int) -> int:
        """Updates that a number of batches makes."""
        return -(-batches // self.recipe.accumulate)

    def _scheduled_step(self) -> int:
        """Steps done by the schedule's count, in which every epoch has as many as one over the unchanged part."""
        planned = self._updates_of(self.train.steps_per_epoch(self._plan.indices))
        return scheduled_step(self.context.clock, self._updates_of(self._batches_done), planned)

    def _must_stop(self) -> bool:
        """Whether to stop after this step; several processes compare notes only when they log."""
        if distributed.is_parallel() and self.context.clock.step % self.recipe.log_every:
            return False
        return self._stop_requested()

    def _stop_requested(self) -> bool:
        """Whether any process was asked to stop."""
        if not distributed.is_parallel():
            return self.interrupt.requested
        flag = torch.tensor(float(self.interrupt.requested), device=self.fabric.device)
        return bool(distributed.all_reduce_sum(flag) > 0)

    def _log(self, samples_per_second: float) -> None:
        record = self.watch.read()
        record["lr"] = float(self.context.optimizer.param_groups[0]["lr"])
        record["samples_per_second"] = samples_per_second * distributed.world_size()
        self._tell("on_log", self.context.clock.step, record)

    def _finish_epoch(self) -> None:
        clock = self.context.clock
        last_epoch = clock.epoch + 1 == self.recipe.epochs
        distributed.average_buffers(self.method)
        self.method.on_epoch_end(self.evaluate, clock)
        if (clock.epoch + 1) % self.recipe.select_every == 0 or last_epoch:
            summary = self.validate()
            improved = self.selection.update(summary.flat, clock.epoch)
            if improved:
                self._save_best()
            self.finished = self.selection.exhausted
            record = _epoch_record(summary, self.method.task.score, improved)
            self._tell("on_epoch_end", clock.epoch, clock.step, record)
            if self.finished and not last_epoch:
                self._tell("on_message", f"stopped early: no progress in {self.recipe.select_metric}")
        self.context.clock = replace(clock, epoch=clock.epoch + 1)
        self._batches_done, self._plan = 0, EpochPlan()
        self.finished = self.finished or last_epoch
        if self.finished or (clock.epoch + 1) % self.recipe.checkpoint_every == 0:
            self.save()

    def validate(self) -> Summary:
        """Scores on the validation part."""
        evaluation = evaluate_combinations(
            self.method,
            self.validation.ordered(),
            self.fabric.device,
            combinations=self.combinations,
            extra=self.extra,
            autocast=self.fabric.autocast,
        )
        return summarise(evaluation, self.method.task, self.directions())

    def directions(self) -> dict[str, Literal["max", "min"]]:
        """Metric -> which way is better, of the task and of metric plugins."""
        return directions_of(self.method.task, self.extra())

    def evaluate(self, combinations: list[Combination]) -> Mapping[Combination, Metrics]:
        """Counts on the validation part, for methods and balancers that look at it."""
        evaluation = evaluate_combinations(
            self.method,
            self.validation.ordered(),
            self.fabric.device,
            combinations=combinations,
            autocast=self.fabric.autocast,
        )
        return {combo: tally.metrics for combo, tally in evaluation.combinations.items()}

    def _epoch_view(self) -> EpochView:
        return EpochView(
            method=self.method,
            clock=self.context.clock,
            groups=self.context.groups,
            samples=len(self.train.part),
            batches=lambda indices=None: self._placed(self.train.without_augmentation().ordered(indices)),
            held_out=lambda: self._placed(self.validation.ordered()),
            evaluate=self.evaluate,
            trial=self._try,
            forget=self._forget,
            all_reduce=distributed.all_reduce_sum,
            gather=distributed.gather_rows,
            seed=self.recipe.seed,
            autocast=self.fabric.autocast,
        )

    def _placed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        return (batch.to(self.fabric.device) for batch in batches)

    def _try(self, balancer: Balancer, *, epochs: int, indices: Tensor | None = None) -> Method:
        """See `robustmm.Trial`."""
        return run_trial(
            self.context,
            balancer,
            recipe=self.recipe,
            sampler=self.sampler,
            loader=self.train,
            interrupt=self.interrupt,
            epochs=epochs,
            indices=indices,
        )

    def _forget(self, parameters: Iterable[nn.Parameter]) -> None:
        for parameter in parameters:
            self.context.optimizer.state.pop(parameter, None)

    def _tell(self, event: str, *arguments: Any) -> None:
        if distributed.rank() == 0:
            for callback in self.callbacks:
                getattr(callback, event)(*arguments)

    def _save_best(self) -> None:
        if distributed.rank() == 0:
            state = {"epoch": self.context.clock.epoch, "score": self.selection.best, "metric": self.selection.metric}
            checkpoint.save(self.best, state | self._method_state())

    def _method_state(self) -> dict[str, Any]:
        return {"weights": self.method.state_dict(), "method_state": self.method.method_state()}

    def save(self) -> None:
        """Write everything that resuming needs; what methods gathered on each process is kept apart.

        No process goes on before the file is there: one that ended now would take the writing one with it.
        """
        method_states = distributed.gather_objects(self.method.method_state())
        if distributed.rank() == 0:
            self._write_last(method_states)
        distributed.barrier()

    def _write_last(self, method_states: list[dict[str, Any]]) -> None:
        clock = self.context.clock
        state = {
            "epoch": clock.epoch,
            "step": clock.step,
            "batches_done": self._batches_done,
            "plan": {"indices": self._plan.indices, "keep": self._plan.keep},
            "finished": self.finished,
            "optimizer": self.context.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "balancer": self.balancer.state_dict(),
            "selection": self.selection.state(),
            "watch": self.watch.state(),
        }
        checkpoint.save(self.last, state | {"weights": self.method.state_dict(), "method_states": method_states})

    def load(self) -> None:
        """Continue from the last checkpoint: equal to never having stopped.

        Raises:
            CheckpointError: there is none, or it belongs to another configuration or number of processes.
        """
        state = checkpoint.load(self.last)
        checkpoint.load_weights(self.method, state["weights"], place=str(self.last))
        if len(state["method_states"]) != distributed.world_size():
            raise CheckpointError(
                f"{self.last} was written by {len(state['method_states'])} processes and there are "
                f"{distributed.world_size()}; resume with as many, since each had its own share of the data"
            )
        self.method.load_method_state(state["method_states"][distributed.rank()])
        self.context.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.balancer.load_state_dict(state["balancer"])
        self.selection.load_state(state["selection"])
        self.watch.load_state(state["watch"])
        self.context.clock = replace(self.context.clock, epoch=state["epoch"], step=state["step"])
        self._batches_done, self._plan = state["batches_done"], EpochPlan(**state["plan"])
        self.finished = state["finished"]

    def load_best(self) -> None:
        """Give the method the weights that selection picked.

        Raises:
            RunFailed: no validation gave a finite score.
        """
        self._refuse_nothing_kept()
        state = checkpoint.load(self.best)
        checkpoint.load_weights(self.method, state["weights"], place=str(self.best))
        self.method.load_method_state(state["method_state"])

    def _refuse_nothing_kept(self) -> None:
        if self.selection.best is None:
            raise RunFailed(f"no epoch gave a finite {self.recipe.select_metric} on validation; nothing to keep")


def _epoch_record(summary: Summary, score: str, improved: bool) -> dict[str, Any]:
    """Every metric of the aggregates, and the task's score of each combination."""
    record: dict[str, Any] = {
        f"validation/{name}": value
        for name, value in summary.flat.items()
        if name.endswith(f"/{score}") or name.split("/")[0] in summary.aggregates
    }
    record["score"] = score
    record["degenerate"] = [row["combination"] for row in summary.rows if row["degenerate"]]
    record["improved"] = improved
    return record
