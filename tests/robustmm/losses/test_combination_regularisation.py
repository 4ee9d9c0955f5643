"""The intended and the released form of the loss on weak combinations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from robustmm.errors import ShapeError
from robustmm.losses.combination_regularisation import masked_mean, outer_mean

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "losses.json").read_text())["combination_regularisation"]
Form = Callable[[Tensor, Tensor], Tensor]
PER_SAMPLE, KEEP = torch.tensor(GOLDEN["per_sample"]), torch.tensor(GOLDEN["keep"])


def test_masked_mean__divides_by_the_whole_batch() -> None:
    assert masked_mean(PER_SAMPLE, KEEP).item() == pytest.approx(GOLDEN["masked_mean"], abs=1e-6)


def test_outer_mean__repeats_the_released_broadcast() -> None:
    released = (PER_SAMPLE * KEEP.reshape(3, 1, 1, 1)).sum() / 3  # the outer product itself
    assert outer_mean(PER_SAMPLE, KEEP).item() == pytest.approx(GOLDEN["outer_mean"], abs=1e-6)
    assert outer_mean(PER_SAMPLE, KEEP).item() == pytest.approx(released.item(), abs=1e-6)


def test_masked_mean__sends_gradient_to_kept_samples_only() -> None:
    loss = PER_SAMPLE.clone().requires_grad_()
    masked_mean(loss, KEEP).backward()
    torch.testing.assert_close(loss.grad, torch.tensor([0.0, 1 / 3, 1 / 3]))


def test_outer_mean__sends_gradient_to_every_sample() -> None:
    loss = PER_SAMPLE.clone().requires_grad_()
    outer_mean(loss, KEEP).backward()
    torch.testing.assert_close(loss.grad, torch.full((3,), 2 / 3))


def test_masked_mean__keeps_non_finite_losses_of_other_samples_out() -> None:
    assert masked_mean(torch.tensor([float("nan"), 1.0, 2.0]), KEEP).item() == pytest.approx(1.0)


@pytest.mark.parametrize("form", [masked_mean, outer_mean])
def test_both_forms__are_zero_when_nothing_is_kept(form: Form) -> None:
    loss = PER_SAMPLE.clone().requires_grad_()
    value = form(loss, torch.zeros(3, dtype=torch.bool))
    value.backward()
    assert value.item() == 0
    assert loss.grad is not None
    assert not loss.grad.any()
    assert form(torch.zeros(0), torch.zeros(0, dtype=torch.bool)).item() == 0


def test_masked_mean__keeping_everything_is_the_mean() -> None:
    assert masked_mean(PER_SAMPLE, torch.ones(3, dtype=torch.bool)).item() == pytest.approx(PER_SAMPLE.mean().item())


@pytest.mark.parametrize("form", [masked_mean, outer_mean])
def test_both_forms__refuse_a_mask_that_would_broadcast(form: Form) -> None:
    with pytest.raises(ShapeError, match=r"per_sample and keep are \(3,\) and \(3, 1, 1, 1\); both must be \(B,\)"):
        form(PER_SAMPLE, KEEP.reshape(3, 1, 1, 1))
