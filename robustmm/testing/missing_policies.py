"""What missing policies promise."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from robustmm.models.missing import MissingPolicy
from robustmm.registry import Component
from robustmm.testing.contract import build, check, require, require_close, require_gradients, seed_cpu

BATCH = 4
#: Modality -> channels by level.
CHANNELS = {"m0": (3, 4), "m1": (5, 6)}


def cases(component: Component) -> Iterator[tuple[MissingPolicy, str, int, Tensor, Tensor]]:
    """(policy, modality, level, feature, present) for vectors and maps, modalities and levels."""
    present = torch.tensor([True, False, True, False])
    for grid in ((), (3, 2)):
        policy: MissingPolicy = build(component, channels=CHANNELS)
        for name, widths in CHANNELS.items():
            for level, width in enumerate(widths):
                yield policy, name, level, torch.randn(BATCH, width, *grid), present


def replaced(policy: MissingPolicy, x: Tensor, present: Tensor, modality: str, level: int) -> Tensor:
    """What the policy makes of a feature; of an input where it decides what an encoder sees. Drawn from one seed."""
    seed_cpu(0)
    if policy.encodes_absent:
        return policy.on_input(x, present, modality=modality)
    return policy.on_feature(x, present, modality=modality, level=level)


@check("missing_policy")
def present_rows_stay(component: Component) -> None:
    """Inputs and features of a modality that is there pass unchanged."""
    for policy, name, level, x, present in cases(component):
        on_input = policy.on_input(x, present, modality=name)
        on_feature = policy.on_feature(x, present, modality=name, level=level)
        for what, result in (("input", on_input), ("feature", on_feature)):
            require(result.shape == x.shape, f"{what} (B, ...) of shape {tuple(x.shape)} becomes {tuple(result.shape)}")
            require_close(result[present], x[present], f"present rows of the {what} of {name}", tolerance=0.0)


@check("missing_policy")
def absent_rows_leave_no_trace(component: Component) -> None:
    """What stands in for a modality does not depend on the values in its place, NaN included."""
    for policy, name, level, x, present in cases(component):
        ours = replaced(policy, x, present, name, level)
        spoilt = x.masked_fill(~present.view(-1, *[1] * (x.dim() - 1)), torch.nan)
        require_close(replaced(policy, spoilt, present, name, level), ours, f"absent rows of {name}", tolerance=0.0)


@check("missing_policy")
def absent_rows_get_no_gradient(component: Component) -> None:
    """Nothing flows back into absent rows, and something into present ones."""
    for policy, name, level, x, present in cases(component):
        x.requires_grad_()
        torch.autograd.backward(replaced(policy, x, present, name, level).sum())
        require(x.grad is not None, f"present rows of {name} get no gradient")
        assert x.grad is not None
        require(not x.grad[~present].any(), f"absent rows of {name} get a gradient")
        require(bool((x.grad[present] == 1).all()), f"the gradient of present rows of {name} is not passed on")


@check("missing_policy")
def stand_in_inputs_are_one_and_the_same(component: Component) -> None:
    """With ``encodes_absent`` every absent row is given the same input, so that it is encoded once in evaluation."""
    for policy, name, _, x, present in cases(component):
        if not policy.encodes_absent:
            continue
        policy.eval()
        rows = policy.on_input(x, present, modality=name)[~present]
        alone = policy.on_input(torch.zeros_like(x[:1]), present[1:2], modality=name)
        require_close(rows, alone.expand_as(rows), f"absent rows of {name} in a batch and alone", tolerance=0.0)


@check("missing_policy")
def every_parameter_trains(component: Component) -> None:
    """Each parameter gets a gradient from some modality and level."""
    policies: dict[int, MissingPolicy] = {}
    for policy, name, level, x, present in cases(component):
        result = replaced(policy, x, present, name, level)
        if result.requires_grad:
            torch.autograd.backward(result.sum())
        policies[id(policy)] = policy
    for policy in policies.values():
        require_gradients(policy, "backward from all modalities and levels")
