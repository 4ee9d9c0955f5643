"""Evidential loss, the reduced Dempster rule, uncertainty and conflict."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Dirichlet, kl_divergence

from robustmm.errors import ShapeError
from robustmm.losses.evidential import (
    belief_conflict,
    combine_evidence,
    dirichlet_kl,
    dirichlet_uncertainty,
    evidential_loss,
)

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "tmc.json").read_text())
#: The two views of the worked example, and a third.
FIRST, SECOND, THIRD = ([[4.0, 0.0, 0.0]], [[1.0, 2.0, 0.0]], [[0.0, 0.0, 3.0]])


def double(values: list, *, requires_grad: bool = False) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=requires_grad)


def evidence_of(*shape: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).exp()


def test_dirichlet_kl__matches_the_released_code_in_value_and_gradient() -> None:
    case = GOLDEN["kl_to_uniform"]
    evidence = double(case["evidence"], requires_grad=True)
    kl = dirichlet_kl(evidence)
    kl.sum().backward()
    torch.testing.assert_close(kl, double(case["kl"]), atol=1e-10, rtol=0)
    torch.testing.assert_close(evidence.grad, double(case["gradient"]), atol=1e-8, rtol=0)


@pytest.mark.parametrize("epoch", GOLDEN["ce_loss"]["epochs"], ids=lambda epoch: f"epoch {epoch['epoch']}")
def test_evidential_loss__matches_the_released_code_in_value_and_gradient(epoch: dict) -> None:
    evidence = double(GOLDEN["ce_loss"]["evidence"], requires_grad=True)
    kl_weight = min(1.0, epoch["epoch"] / epoch["annealing_epochs"])
    loss = evidential_loss(evidence, torch.tensor(GOLDEN["ce_loss"]["target"]), kl_weight)
    loss.sum().backward()
    torch.testing.assert_close(loss, double(epoch["loss"]), atol=1e-10, rtol=0)
    torch.testing.assert_close(evidence.grad, double(epoch["gradient"]), atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", ["combine_two_views", "combine_three_views"])
def test_combine_evidence__matches_the_released_code_in_value_and_gradient(name: str) -> None:
    case = GOLDEN[name]
    views = [double(view, requires_grad=True) for view in case["evidence"]]
    fused = combine_evidence(views)
    (fused * double(case["weights"])).sum().backward()
    torch.testing.assert_close(fused, double(case["fused"]), atol=1e-9, rtol=0)
    for view, gradient in zip(views, case["gradient"], strict=True):
        torch.testing.assert_close(view.grad, double(gradient), atol=1e-9, rtol=0)


def test_evidential_loss__of_all_views_and_their_fusion_matches_the_released_training_loss() -> None:
    case = GOLDEN["total"]
    views = [double(view, requires_grad=True) for view in case["evidence"]]
    target, kl_weight = torch.tensor(case["target"]), case["epoch"] / case["annealing_epochs"]
    fused = combine_evidence(views)
    total = torch.stack([evidential_loss(opinion, target, kl_weight) for opinion in [fused, *views]]).sum(dim=0).mean()
    total.backward()
    assert total.item() == pytest.approx(case["loss"], abs=1e-9)
    for view, gradient in zip(views, case["gradient"], strict=True):
        torch.testing.assert_close(view.grad, double(gradient), atol=1e-8, rtol=0)


def test_worked_example() -> None:
    first, second, third = double(FIRST), double(SECOND), double(THIRD)
    fused = combine_evidence([first, second])
    torch.testing.assert_close(fused, double([[19 / 3, 2.0, 0.0]]))
    assert dirichlet_uncertainty(fused).item() == pytest.approx(0.264706, abs=1e-6)
    assert belief_conflict([first, second]).item() == pytest.approx(0.190476, abs=1e-6)
    torch.testing.assert_close(combine_evidence([first, second, third]), double([[19 / 3, 2.0, 3.0]]))
    target = torch.tensor([0])
    losses = [evidential_loss(evidence, target, 0.5).item() for evidence in (first, second, fused)]
    assert losses == pytest.approx([0.366667, 1.595880, 0.772827], abs=1e-6)
    assert sum(losses) == pytest.approx(2.735373, abs=1e-6)
    assert evidential_loss(second, target, 0.0).item() == pytest.approx(1.283333, abs=1e-6)


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_dirichlet_kl__agrees_with_torch_distributions(classes: int) -> None:
    evidence = evidence_of(6, classes).double()
    ones = torch.ones_like(evidence)
    expected = kl_divergence(Dirichlet(evidence + 1), Dirichlet(ones)) if classes > 1 else evidence.new_zeros(6)
    torch.testing.assert_close(dirichlet_kl(evidence), expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0, 30.9, 31.1, 1e3, 1e6, 1e9])
def test_evidential_loss__keeps_its_digits_in_float32(size: float) -> None:
    evidence = torch.tensor([[size, 0.0, size / 3], [0.0, 0.5 * size, 0.0]])
    target = torch.tensor([0, 2])
    single, exact = evidence.clone().requires_grad_(), evidence.double().requires_grad_()
    value, expected = evidential_loss(single, target, 1.0), evidential_loss(exact, target, 1.0)
    torch.testing.assert_close(value.double(), expected, atol=2e-6, rtol=1e-6)
    value.sum().backward()
    expected.sum().backward()
    assert single.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(single.grad.double(), exact.grad, atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 1000])
def test_dirichlet_kl__is_exactly_zero_without_evidence_and_has_no_gradient(classes: int) -> None:
    evidence = torch.zeros(2, classes, requires_grad=True)
    kl = dirichlet_kl(evidence)
    kl.sum().backward()
    assert kl.tolist() == [0.0, 0.0]
    torch.testing.assert_close(evidence.grad, torch.zeros(2, classes), atol=1e-5, rtol=0)


def test_evidential_loss__penalises_the_wrong_classes_alone() -> None:
    evidence = torch.tensor([[7.0, 0.0, 0.0]])
    target = torch.tensor([0])
    assert torch.equal(evidential_loss(evidence, target, 1.0), evidential_loss(evidence, target, 0.0))
    wrong = torch.tensor([1])
    assert (evidential_loss(evidence, wrong, 1.0) > evidential_loss(evidence, wrong, 0.0)).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1e6, width=32), min_size=3, max_size=3), min_size=1, max_size=4))
def test_evidential_loss__is_never_negative(rows: list[list[float]]) -> None:
    loss = evidential_loss(torch.tensor(rows), torch.zeros(len(rows), dtype=torch.long), 1.0)
    assert (loss >= -1e-5).all()


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_combine_evidence__absent_view_changes_no_bit(absent: int) -> None:
    views = list(evidence_of(3, 50, 7))
    views[absent] = torch.zeros(50, 7)
    others = [view for index, view in enumerate(views) if index != absent]
    leaves = [view.clone().requires_grad_() for view in views]
    fewer = [view.clone().requires_grad_() for view in others]
    assert torch.equal(combine_evidence(views), combine_evidence(others))
    assert torch.equal(belief_conflict(views), belief_conflict(others))
    combine_evidence(leaves).square().sum().backward()
    combine_evidence(fewer).square().sum().backward()
    present = [leaf for index, leaf in enumerate(leaves) if index != absent]
    assert all(torch.equal(own.grad, other.grad) for own, other in zip(present, fewer, strict=True))


def test_combine_evidence__of_one_view_is_that_view() -> None:
    view = evidence_of(4, 3)
    assert torch.equal(combine_evidence([view]), view)
    assert belief_conflict([view]).tolist() == [0.0] * 4


def test_combine_evidence__does_not_depend_on_the_order_of_views() -> None:
    views = list(evidence_of(4, 5, 6).double())
    expected, conflict = combine_evidence(views), belief_conflict(views)
    for order in itertools.permutations(views):
        torch.testing.assert_close(combine_evidence(order), expected)
        torch.testing.assert_close(belief_conflict(order), conflict)


def test_combine_evidence__equals_the_rule_on_masses() -> None:
    first, second = evidence_of(2, 40, 4).double()
    strengths = [view.sum(dim=1, keepdim=True) + 4 for view in (first, second)]
    (b1, b2), (u1, u2) = (first / strengths[0], second / strengths[1]), (4 / strengths[0], 4 / strengths[1])
    conflict = b1.sum(dim=1) * b2.sum(dim=1) - (b1 * b2).sum(dim=1)
    belief = (b1 * b2 + b1 * u2 + b2 * u1) / (1 - conflict[:, None])
    uncertainty = u1 * u2 / (1 - conflict[:, None])
    torch.testing.assert_close(combine_evidence([first, second]), belief * 4 / uncertainty)
    torch.testing.assert_close(belief_conflict([first, second]), conflict)


def test_belief_conflict__of_three_views_is_what_the_steps_lose_together() -> None:
    first, second, third = evidence_of(3, 20, 4).double()
    kept = (1 - belief_conflict([first, second])) * (1 - belief_conflict([combine_evidence([first, second]), third]))
    torch.testing.assert_close(belief_conflict([first, second, third]), 1 - kept)


def test_combine_evidence__contradiction_does_not_raise_the_uncertainty() -> None:
    # The published rule behaves like this, so the conflict is what tells.
    views = torch.tensor([[[1e8, 0.0, 0.0]], [[0.0, 1e8, 0.0]]])
    fused = combine_evidence(views)
    assert fused.tolist() == [[1e8, 1e8, 0.0]]
    assert dirichlet_uncertainty(fused).item() == pytest.approx(1.5e-8)
    assert belief_conflict(views).item() == pytest.approx(1.0)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(0, 1000))
def test_combine_evidence__is_never_less_certain_than_a_view(views: int, seed: int) -> None:
    evidence = evidence_of(views, 3, 4, seed=seed)
    fused = dirichlet_uncertainty(combine_evidence(evidence))
    assert all((fused <= dirichlet_uncertainty(view) * (1 + 1e-6)).all() for view in evidence)


def test_dirichlet_uncertainty__and_belief_sum_to_one() -> None:
    evidence = evidence_of(5, 4)
    belief = evidence / (evidence.sum(dim=1, keepdim=True) + 4)
    torch.testing.assert_close(belief.sum(dim=1) + dirichlet_uncertainty(evidence), torch.ones(5))
    assert dirichlet_uncertainty(torch.zeros(2, 4)).tolist() == [1.0, 1.0]


def test_maps_equal_their_rows() -> None:
    maps = evidence_of(2, 3, 4, 5, 6)  # (V, B, K, H, W)
    rows = maps.permute(0, 1, 3, 4, 2).reshape(2, -1, 4)
    fused = combine_evidence(maps)
    assert torch.equal(fused.permute(0, 2, 3, 1).reshape(-1, 4), combine_evidence(rows))
    torch.testing.assert_close(belief_conflict(maps).flatten(), belief_conflict(rows))
    torch.testing.assert_close(dirichlet_uncertainty(fused).flatten(), dirichlet_uncertainty(combine_evidence(rows)))


def test_evidential_functions__keep_full_precision_under_autocast() -> None:
    views, target = evidence_of(2, 6, 40), torch.arange(6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fused = combine_evidence(views)
        loss = evidential_loss(views[0], target, 0.5)
        of_half = evidential_loss(views[0].bfloat16(), target, 0.5)
    assert torch.equal(fused, combine_evidence(views))
    assert torch.equal(loss, evidential_loss(views[0], target, 0.5))
    assert of_half.dtype == torch.float32


def test_evidential_functions__refuse_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(3,\); they must be \(R, K\) and \(R,\)"):
        evidential_loss(torch.zeros(2, 3), torch.zeros(3, dtype=torch.long), 1.0)
    with pytest.raises(ShapeError, match=r"the views are \(2, 3\), \(2, 4\); at least one is needed"):
        combine_evidence([torch.zeros(2, 3), torch.zeros(2, 4)])
    with pytest.raises(ShapeError, match="the views are none"):
        belief_conflict([])
