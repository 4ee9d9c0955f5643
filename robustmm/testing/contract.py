"""What every contract check is made of: registration by kind, building a component, failing with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from robustmm.engine.checkpoint import pack, unpack
from robustmm.registry import KINDS, Component, Options

#: One promise of a kind: returns where the component keeps it.
Check = Callable[[Component], None]

_CHECKS: dict[str, list[Check]] = {kind: [] for kind in KINDS}


class ContractError(AssertionError):
    """A component breaks the contract of its kind."""


class NotApplicable(Exception):
    """A check cannot be made on this component; the text says why."""


def seed_cpu(number: int) -> None:
    """Seed torch's generator of the CPU alone: the one for all devices takes a millisecond a call."""
    torch.default_generator.manual_seed(number)


def check(*kinds: str) -> Callable[[Check], Check]:
    """Make a function a check of ``kinds``. It runs on seed 0 and leaves torch's global generator as it was."""

    def decorate(function: Check) -> Check:
        @wraps(function)
        def seeded(component: Component) -> None:
            with torch.random.fork_rng(devices=[]):
                seed_cpu(0)
                function(component)

        for kind in kinds:
            _CHECKS[kind].append(seeded)
        return seeded

    return decorate


def registered_checks(kind: str) -> list[Check]:
    """The checks of a kind in the order of their definition."""
    return list(_CHECKS[kind])


def require(condition: bool | Tensor, message: str) -> None:
    """Fail with ``message`` unless ``condition`` holds.

    Raises:
        ContractError: it does not.
    """
    if not bool(condition):
        raise ContractError(message)


@contextmanager
def during(what: object) -> Iterator[None]:
    """Note on whatever is raised within in which setting it happened."""
    try:
        yield
    except Exception as error:
        error.add_note(f"with {what}")
        raise


def example_options(component: Component) -> Options:
    """The options with which a component is tested; see `robustmm.Options.contract_example`.

    Raises:
        NotApplicable: it cannot be built without data from outside.
        ContractError: its example, or its defaults, are not valid.
    """
    example = component.options.contract_example()
    if example is None:
        raise NotApplicable("contract_example is None: it cannot be built without data from outside")
    try:
        return component.options.model_validate(example)
    except ValidationError as error:
        raise ContractError(
            f"options {example} are not valid: {error}. Give {component.options.__name__} a classmethod "
            "contract_example that returns valid ones, or None where the component needs data from outside"
        ) from error


def build(component: Component, **context: Any) -> Any:
    """Build a component with its example options, as the core builds it: plain keyword arguments, weights from seed 0.

    Args:
        component: Of any kind.
        context: What its kind is given, see `robustmm.hookspecs`.
    """
    options = example_options(component)
    seed_cpu(0)
    return component.build(**context, **{name: getattr(options, name) for name in type(options).model_fields})


def through_checkpoint(state: Any) -> Any:
    """A state as a checkpoint gives it back: tensors apart, the rest through JSON.

    Raises:
        CheckpointError: a value is neither a tensor nor JSON.
    """
    tensors: dict[str, Tensor] = {}
    return unpack(json.loads(json.dumps(pack(state, tensors))), tensors)


def require_equal_states(ours: Any, theirs: Any, what: str) -> None:
    """Fail unless two states hold the same, tensors bit for bit; tuples count as lists."""
    first: dict[str, Tensor] = {}
    second: dict[str, Tensor] = {}
    require(pack(ours, first) == pack(theirs, second), f"{what}: {_short(ours)} is not {_short(theirs)}")
    for name, tensor in first.items():
        same = tensor.shape == second[name].shape and bool(((tensor == second[name]) | tensor.isnan()).all())
        require(same, f"{what}: {name.lstrip('/')} differs{_distance(tensor, second[name])}")


def _short(state: Any) -> str:
    text = repr(state)
    return text if len(text) < 200 else text[:200] + "..."


def _distance(ours: Tensor, theirs: Tensor) -> str:
    if ours.shape != theirs.shape:
        return f" in shape, {tuple(ours.shape)} and {tuple(theirs.shape)}"
    return f" by up to {float((ours.double() - theirs.double()).abs().max()):.3g}"


def require_close(ours: Tensor, theirs: Tensor, what: str, *, tolerance: float = 1e-5) -> None:
    """Fail unless two tensors agree to ``tolerance``, relative to the largest value where that is above 1."""
    require(ours.shape == theirs.shape, f"{what}: shape {tuple(ours.shape)} is not {tuple(theirs.shape)}")
    if ours.numel() == 0:
        return
    ours, theirs = ours.detach(), theirs.detach()
    largest = max(float(theirs.abs().max()), 1.0)
    difference = float((ours - theirs).abs().max())
    require(difference <= tolerance * largest, f"{what}: they differ by up to {difference:.3g}")


def require_finite(tensor: Tensor, what: str) -> None:
    """Fail where a value is NaN or infinite."""
    require(tensor.isfinite().all(), f"{what} is not finite")


def require_gradients(module: nn.Module, what: str) -> None:
    """Fail where a parameter that trains has no gradient, or one that is not finite."""
    missing = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    require(not missing, f"{what}: no gradient reaches {', '.join(missing)}")
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            require_finite(parameter.grad, f"{what}: the gradient of {name}")
