"""What balancing strategies promise."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

import torch
from torch import Tensor

from robustmm.balancing.balancer import Balancer
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
    through_checkpoint,
)
from robustmm.testing.runs import STEPS_PER_EPOCH, Run, mixed, showing
from robustmm.testing.tiny import NAMES, WIDTH, Setting, mixed_presence, settings

#: What a balancer requires that trains a head per modality.
HEADS = "unimodal_heads"
#: What the rehearsed runs offer beside names of components.
OFFERED = frozenset({"class_probability", "separate_encoders", HEADS})


def make(component: Component) -> Balancer:
    """The balancer under test.

    Raises:
        NotApplicable: it requires more than plain training offers.
    """
    lacking = sorted(r for r in component.requires - OFFERED if ":" not in r or r.startswith("method:"))
    if lacking:
        raise NotApplicable(f"it requires {', '.join(lacking)}, which plain training does not offer")
    balancer = build(component)
    require(isinstance(balancer, Balancer), f"build gives {type(balancer).__name__}, which is no robustmm.Balancer")
    made: Balancer = balancer
    return made


def run_with(component: Component, setting: Setting, *, accumulate: int = 1, **options: Any) -> Run:
    """A rehearsed run with the balancer under test, and with what it requires."""
    heads = HEADS in component.requires
    return Run(setting, make(component), heads=heads, accumulate=accumulate, **options)


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
    ours = run_with(component, setting)
    ours.train(mixed(setting) if columns is None else showing(setting, columns))
    what = f"{why} there is nothing to balance, but the run changes"
    require_equal_states(ours.weights(heads=False), dict(plain_weights(setting, columns)), what)


@check("balancer")
def overrides_members_that_are_called(component: Component) -> None:
    """No method has a name that is almost one of `Balancer`'s: nothing would ever call it."""
    members = [name for name in vars(Balancer) if not name.startswith("_")]
    own = [name for cls in type(make(component)).__mro__ if cls not in (Balancer, object) for name in vars(cls)]
    for name in own:
        close = get_close_matches(name, members, n=1, cutoff=0.85) if name not in members else []
        require(not close, f"nothing calls '{name}'; did you mean '{''.join(close)}'?")


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
                run = run_with(component, setting)
                run.train(presence, stop=4)
                for name, value in run.weights().items():
                    require_finite(value, name)


@check("balancer")
def absent_encoder_stays_as_it_is(component: Component) -> None:
    """The encoder of a modality that no sample shows is not changed, not even by noise."""
    for setting in settings(component, counts=(2, 3)):
        with during(setting):
            run = run_with(component, setting)
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
            run = run_with(component, setting)
            run.train(mixed(setting))
            moved = not torch.equal(run.method.own.detach(), torch.ones(3))
            require(moved, "a parameter that only an auxiliary term trains does not move")


@check("balancer")
def state_survives_checkpoint(component: Component) -> None:
    """`state_dict` holds JSON values and tensors, and comes back as it was."""
    for setting in settings(component, counts=(2,)):
        with during(setting):
            run = run_with(component, setting)
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
            straight = run_with(component, setting)
            straight.train(mixed(setting))
            for step in (STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1):
                first, second = run_with(component, setting), run_with(component, setting)
                first.train(mixed(setting), stop=step)
                second.load(through_checkpoint(first.state()))
                second.train(mixed(setting), start=step)
                what = f"weights of a run resumed at step {step} and of one that was not stopped"
                require_equal_states(second.weights(), straight.weights(), what)


@check("balancer")
def accumulates_batches(component: Component) -> None:
    """An update made of several batches is finite, and where only one modality is shown as without balancing."""
    for setting in settings(component, counts=(1, 3)):
        with during(setting):
            run = run_with(component, setting, accumulate=3)
            run.train(mixed(setting), stop=4)
            for name, value in run.weights().items():
                require_finite(value, name)
            ours, plain = run_with(component, setting, accumulate=2), Run(setting, Balancer(), accumulate=2)
            for one in (ours, plain):
                one.train(showing(setting, [0]), stop=4)
            what = "where one modality alone is shown an update of two batches changes"
            require_equal_states(ours.weights(heads=False), plain.weights(), what)


@check("balancer")
def order_of_modalities_does_not_matter(component: Component) -> None:
    """With the columns the other way round every encoder ends as it did.

    A strategy that draws random numbers deals them to other modalities then, and is not checked.
    """
    setting = Setting(3)
    if setting not in list(settings(component)):
        raise NotApplicable("it is for dense prediction")
    ours, other_seed = run_with(component, setting), run_with(component, setting, seed=1)
    ours.train(mixed(setting))
    other_seed.train(mixed(setting))
    if any(not torch.equal(value, other_seed.weights()[name]) for name, value in ours.weights().items()):
        raise NotApplicable("it draws random numbers, which go to other modalities in another order")
    turned = run_with(component, setting, names=NAMES[2::-1])
    turned.method.load_state_dict(_turned(run_with(component, setting).weights()))
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
            run = run_with(component, setting)
            run.train(mixed(setting), stop=STEPS_PER_EPOCH)
            state = torch.random.get_rng_state()
            training = all(part.training for part in run.method.modules())
            require(training, "modules are left in evaluation mode after a step")
            Run(setting, Balancer()).train(mixed(setting), stop=STEPS_PER_EPOCH)
            same = torch.equal(state, torch.random.get_rng_state())
            require(same, "it draws from torch's global generator; use StepView.generator")
