"""What balancing strategies promise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from robustmm.balancing.balancer import Balancer
from robustmm.balancing.view import EpochView
from robustmm.engine.step import StepContext, train_step
from robustmm.methods.method import Blueprint, Method
from robustmm.registry import Component
from robustmm.testing.contract import (
    NotApplicable,
    build,
    check,
    during,
    require,
    require_close,
    require_equal_states,
    require_finite,
    seed_cpu,
    through_checkpoint,
)
from robustmm.testing.rehearsal import held_out
from robustmm.testing.tiny import NAMES, SIZE, WIDTH, Setting, batch, blueprint, clock, mixed_presence, settings
from robustmm.types import Batch, Clock, LossTerm, Output

STEPS_PER_EPOCH = 2
#: Steps of a rehearsed run: four epochs.
STEPS = 8
#: What the rehearsed runs offer beside names of components.
OFFERED = frozenset({"class_probability"})

Presence = Callable[[int], Tensor]


class WithAuxiliary(Method):
    """Plain training, and an auxiliary term that alone trains one parameter of its own."""

    def __init__(self, parts: Blueprint) -> None:
        super().__init__(parts)
        self.own = nn.Parameter(torch.ones(3))

    def losses(self, output: Output, batch: Batch, clock: Clock) -> dict[str, LossTerm]:
        """See `Method.losses`."""
        return super().losses(output, batch, clock) | {"own": LossTerm(self.own.square().sum(), "auxiliary")}


@cache
def _fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


class Run:
    """A few steps of the engine on tiny data.

    Args:
        setting: Number of modalities, and global or dense.
        balancer: Under test, or the core's own, which does nothing.
        names: Another order of the columns.
        seed: Of the run; what a balancer draws depends on it.
    """

    def __init__(
        self, setting: Setting, balancer: Balancer, *, names: Sequence[str] | None = None, seed: int = 0
    ) -> None:
        seed_cpu(0)
        self.setting, self.balancer, self.names = setting, balancer, tuple(names or setting.names)
        self.method = WithAuxiliary(blueprint(setting, names=self.names))
        optimizer = SGD(self.method.parameters(), lr=0.1, momentum=0.9)
        self.context = StepContext(
            fabric=_fabric(),
            method=self.method,
            balancer=balancer,
            optimizer=cast(Optimizer, _fabric().setup_optimizers(optimizer)),
            groups=self.method.trunk.parameter_groups(),
            clip_norm=None,
            seed=seed,
            clock=clock(epochs=STEPS // STEPS_PER_EPOCH, steps_per_epoch=STEPS_PER_EPOCH),
        )

    def train(self, presence: Presence, *, start: int = 0, stop: int = STEPS) -> None:
        """Make steps; ``presence`` gives the mask of each."""
        self.method.train()
        for step in range(start, stop):
            epoch, place = divmod(step, STEPS_PER_EPOCH)
            self.context.clock = replace(self.context.clock, epoch=epoch, step=step)
            if place == 0:
                self._begin_epoch()
            seed_cpu(step)
            train_step(self.context, batch(self.setting, seed=step, names=self.names), presence(step))

    def _begin_epoch(self) -> None:
        parts = [batch(self.setting, seed=seed, names=self.names) for seed in range(STEPS_PER_EPOCH)]
        view = EpochView(
            method=self.method,
            clock=self.context.clock,
            groups=self.context.groups,
            batches=lambda: iter(parts),
            evaluate=held_out(self.method, self.setting),
            seed=self.context.seed,
        )
        plan = self.balancer.on_epoch_start(view)
        if plan is not None and plan.indices is not None:
            chosen, count = plan.indices, SIZE * STEPS_PER_EPOCH
            inside = chosen.dim() == 1 and len(chosen) > 0 and not (chosen < 0).any() and not (chosen >= count).any()
            require(inside, f"EpochPlan.indices must be positions 0..{count - 1}, got {chosen}")
            if self.setting.count == 1:
                same = chosen.sort().values.equal(torch.arange(count))
                require(same, "with one modality EpochPlan.indices must be every sample once, or None")

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers, copied."""
        return {name: value.clone() for name, value in self.method.state_dict().items()}

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "weights": self.method.state_dict(),
            "optimizer": self.context.optimizer.state_dict(),
            "balancer": self.balancer.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.method.load_state_dict(state["weights"])
        self.context.optimizer.load_state_dict(state["optimizer"])
        self.balancer.load_state_dict(state["balancer"])


def make(component: Component) -> Balancer:
    """The balancer under test.

    Raises:
        NotApplicable: it requires more than plain training offers.
    """
    lacking = sorted(r for r in component.requires - OFFERED if ":" not in r or r.startswith("method:"))
    if lacking:
        raise NotApplicable(f"it requires {', '.join(lacking)}, which plain training does not offer")
    balancer: Balancer = build(component)
    return balancer


def mixed(setting: Setting) -> Presence:
    """All combinations in every step."""
    return lambda step: mixed_presence(setting.count)


def showing(setting: Setting, columns: Sequence[int]) -> Presence:
    """The modalities of ``columns`` in every sample, and no other."""
    mask = torch.zeros(SIZE, setting.count, dtype=torch.bool)
    mask[:, list(columns)] = True
    return lambda step: mask


@cache
def plain_weights(setting: Setting, columns: tuple[int, ...] | None) -> Mapping[str, Tensor]:
    """Weights after a run without balancing, see `require_no_op`."""
    run = Run(setting, Balancer())
    run.train(mixed(setting) if columns is None else showing(setting, columns))
    return run.weights()


def require_no_op(component: Component, setting: Setting, columns: tuple[int, ...] | None, why: str) -> None:
    """Fail unless a run is bit for bit the one without balancing.

    Args:
        component: A balancer.
        setting: Number of modalities, and global or dense.
        columns: What every sample shows; None means mixed combinations.
        why: Begins the message.
    """
    ours = Run(setting, make(component))
    ours.train(mixed(setting) if columns is None else showing(setting, columns))
    what = f"{why} there is nothing to balance, but the run changes"
    require_equal_states(ours.weights(), dict(plain_weights(setting, columns)), what)


@check("balancer")
def one_modality_is_left_alone(component: Component) -> None:
    """With M = 1 a run is bit for bit the one without balancing."""
    for setting in settings(component, counts=(1,)):
        with during(setting):
            require_no_op(component, setting, None, "with one modality")


@check("balancer")
def one_shown_modality_is_left_alone(component: Component) -> None:
    """Where all samples show one and the same modality, a run is bit for bit the one without balancing."""
    for setting in settings(component, counts=(2, 3)):
        for column in (0, setting.count - 1):
            with during(setting):
                require_no_op(component, setting, (column,), f"where only {setting.names[column]} is shown")


@check("balancer")
def weights_stay_finite(component: Component) -> None:
    """Mixed combinations, and modalities that a whole batch lacks, give finite weights for one to four modalities."""
    for setting in settings(component):
        for what, presence in (("mixed", mixed(setting)), ("only the first", showing(setting, [0]))):
            with during(f"{setting}, {what} combinations"):
                run = Run(setting, make(component))
                run.train(presence, stop=4)
                for name, value in run.weights().items():
                    require_finite(value, name)


@check("balancer")
def absent_encoder_stays_as_it_is(component: Component) -> None:
    """The encoder of a modality that no sample shows is not changed, not even by noise."""
    for setting in settings(component, counts=(2, 3)):
        with during(setting):
            run = Run(setting, make(component))
            owned = run.context.groups[setting.names[-1]]
            before = [parameter.detach().clone() for parameter in owned]
            run.train(showing(setting, range(setting.count - 1)))
            same = all(torch.equal(old, new) for old, new in zip(before, owned, strict=True))
            require(same, f"the encoder of {setting.names[-1]} changes although nothing shows that modality")


@check("balancer")
def auxiliary_terms_still_train(component: Component) -> None:
    """Terms that are not the task's keep their gradient: a balancer re-routes and re-weighs task terms alone."""
    for setting in settings(component, counts=(2,)):
        with during(setting):
            run = Run(setting, make(component))
            run.train(mixed(setting))
            moved = not torch.equal(run.method.own.detach(), torch.ones(3))
            require(moved, "a parameter that only an auxiliary term trains does not move")


@check("balancer")
def state_survives_checkpoint(component: Component) -> None:
    """`state_dict` holds JSON values and tensors, and comes back as it was."""
    for setting in settings(component, counts=(2,)):
        with during(setting):
            run = Run(setting, make(component))
            run.train(mixed(setting))
            saved = through_checkpoint(run.balancer.state_dict())
            fresh = make(component)
            fresh.load_state_dict(saved)
            require_equal_states(fresh.state_dict(), run.balancer.state_dict(), "state_dict after a checkpoint")


@check("balancer")
def resumed_run_equals_uninterrupted(component: Component) -> None:
    """A run resumed between epochs or within one goes on as if nothing had happened, bit for bit."""
    for setting in settings(component, counts=(2,)):
        with during(setting):
            straight = Run(setting, make(component))
            straight.train(mixed(setting))
            for step in (STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1):
                first, second = Run(setting, make(component)), Run(setting, make(component))
                first.train(mixed(setting), stop=step)
                second.load(through_checkpoint(first.state()))
                second.train(mixed(setting), start=step)
                what = f"weights of a run resumed at step {step} and of one that was not stopped"
                require_equal_states(second.weights(), straight.weights(), what)


@check("balancer")
def order_of_modalities_does_not_matter(component: Component) -> None:
    """With the columns the other way round every encoder ends as it did.

    A strategy that draws random numbers deals them to other modalities then, and is not checked.
    """
    setting = Setting(3)
    if setting not in list(settings(component)):
        raise NotApplicable("it is for dense prediction")
    ours, other_seed = Run(setting, make(component)), Run(setting, make(component), seed=1)
    ours.train(mixed(setting))
    other_seed.train(mixed(setting))
    if any(not torch.equal(value, other_seed.weights()[name]) for name, value in ours.weights().items()):
        raise NotApplicable("it draws random numbers, which go to other modalities in another order")
    turned = Run(setting, make(component), names=NAMES[2::-1])
    turned.method.load_state_dict(_turned(Run(setting, Balancer()).weights()))
    turned.train(lambda step: mixed_presence(3).flip(1))
    expected = _turned(ours.weights())
    for name, value in turned.weights().items():
        require_close(value.float(), expected[name].float(), f"{name} in two orders of the modalities", tolerance=1e-4)


def _turned(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights for the columns in reverse: behind concatenation the head's blocks change places."""
    head = weights["head.linear.weight"]
    blocks = head.view(len(head), -1, WIDTH).flip(1)
    return {**weights, "head.linear.weight": blocks.reshape_as(head)}


@check("balancer")
def leaves_mode_and_generator_alone(component: Component) -> None:
    """After a step the model is in training mode, and torch's global generator stands where it would without it."""
    for setting in settings(component, counts=(1, 3)):
        with during(setting):
            run = Run(setting, make(component))
            run.train(mixed(setting), stop=STEPS_PER_EPOCH)
            state = torch.random.get_rng_state()
            training = all(part.training for part in run.method.modules())
            require(training, "modules are left in evaluation mode after a step")
            Run(setting, Balancer()).train(mixed(setting), stop=STEPS_PER_EPOCH)
            same = torch.equal(state, torch.random.get_rng_state())
            require(same, "it draws from torch's global generator; use StepView.generator")
