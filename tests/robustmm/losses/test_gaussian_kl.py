"""KL divergence of a diagonal Gaussian from the standard normal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from robustmm.errors import ShapeError
from robustmm.losses.gaussian_kl import gaussian_kl

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "losses.json").read_text())["gaussian_kl"]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_gaussian_kl__matches_the_hand_worked_values() -> None:
    mu, log_var = torch.tensor(GOLDEN["mu"]), torch.tensor(GOLDEN["sigma"]).square().log()
    per_sample = gaussian_kl(mu, log_var)
    torch.testing.assert_close(per_sample, torch.tensor(GOLDEN["per_sample"]), atol=1e-6, rtol=0)
    assert per_sample.mean().item() == pytest.approx(GOLDEN["batch_mean"], abs=1e-6)
    single = gaussian_kl(mu.reshape(4, 1), log_var.reshape(4, 1))
    torch.testing.assert_close(single, torch.tensor(GOLDEN["per_dimension"]).flatten(), atol=1e-6, rtol=0)


def test_gaussian_kl__agrees_with_torch_distributions() -> None:
    mu, log_var = normal(5, 7), normal(5, 7, seed=1)
    expected = kl_divergence(Normal(mu, log_var.mul(0.5).exp()), Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(gaussian_kl(mu, log_var), expected)


def test_gaussian_kl__averages_positions_unless_asked_to_sum() -> None:
    mu, log_var = normal(2, 3, 4, 5), normal(2, 3, 4, 5, seed=1)
    at_positions = gaussian_kl(mu.permute(0, 2, 3, 1).reshape(40, 3), log_var.permute(0, 2, 3, 1).reshape(40, 3))
    torch.testing.assert_close(gaussian_kl(mu, log_var), at_positions.reshape(2, 20).mean(dim=1))
    torch.testing.assert_close(gaussian_kl(mu, log_var, positions="sum"), at_positions.reshape(2, 20).sum(dim=1))


def test_gaussian_kl__of_a_constant_map_does_not_depend_on_its_size() -> None:
    mu = normal(2, 3, 1, 1)
    small, large = mu.expand(2, 3, 2, 2), mu.expand(2, 3, 8, 8)
    torch.testing.assert_close(gaussian_kl(small, small), gaussian_kl(large, large))


def test_gaussian_kl__is_zero_with_zero_gradient_at_the_standard_normal() -> None:
    mu, log_var = torch.zeros(2, 3, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    value = gaussian_kl(mu, log_var)
    value.sum().backward()
    assert value.tolist() == [0.0, 0.0]
    assert mu.grad is not None
    assert log_var.grad is not None
    assert not mu.grad.any()
    assert not log_var.grad.any()


def test_gaussian_kl__reaches_both_heads_with_the_closed_form_gradient() -> None:
    mu, log_var = normal(4, 3).requires_grad_(), normal(4, 3, seed=1).requires_grad_()
    gaussian_kl(mu, log_var).sum().backward()
    torch.testing.assert_close(mu.grad, mu.detach())
    torch.testing.assert_close(log_var.grad, 0.5 * (log_var.detach().exp() - 1))


def test_gaussian_kl__starts_near_the_known_value_behind_batch_norm() -> None:
    mu, log_var = normal(4000, 8), normal(4000, 8, seed=1)
    assert gaussian_kl(mu, log_var).mean().item() / 8 == pytest.approx(GOLDEN["batch_norm_start"], rel=0.02)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-8, 8)), min_size=1, max_size=6))
def test_gaussian_kl__is_never_negative(pairs: list[tuple[float, float]]) -> None:
    mu, log_var = torch.tensor(pairs).unbind(dim=1)
    assert gaussian_kl(mu[None], log_var[None]).item() >= 0


def test_gaussian_kl__keeps_full_precision_under_autocast() -> None:
    mu, log_var = normal(2, 4096), normal(2, 4096, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = gaussian_kl(mu, log_var)
        of_half = gaussian_kl(mu.bfloat16(), log_var.bfloat16())
    assert torch.equal(value, gaussian_kl(mu, log_var))
    assert of_half.dtype == torch.float32


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((2,), (2,))])
def test_gaussian_kl__refuses_shapes_that_do_not_fit(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ShapeError, match=r"mu and log_var are \(2,.*must share one shape \(B, D, \.\.\.\)"):
        gaussian_kl(torch.zeros(shapes[0]), torch.zeros(shapes[1]))
