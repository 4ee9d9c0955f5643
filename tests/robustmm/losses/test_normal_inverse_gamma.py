"""Normal-inverse-gamma: head, summation, uncertainties, likelihood and regulariser."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from torch.distributions import StudentT

from robustmm.errors import ShapeError
from robustmm.losses.normal_inverse_gamma import NormalInverseGamma, combine_nig, nig_nll, nig_regulariser

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "monig.json").read_text())
FIELDS = ("mean", "count", "shape", "scale")
#: The worked example.
A, B, C = (1.0, 2.0, 2.0, 1.0), (3.0, 1.0, 1.5, 0.5), (2.0, 0.5, 3.0, 2.0)


def double(values: list, *, requires_grad: bool = False) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=requires_grad)


def of(*rows: tuple[float, ...]) -> NormalInverseGamma:
    return NormalInverseGamma(*double(list(rows)).unbind(dim=1))


def drawn(modalities: int, *shape: int) -> list[NormalInverseGamma]:
    generator = torch.Generator().manual_seed(0)
    size = (shape[0], 4, *shape[1:])
    return [NormalInverseGamma.from_raw(2 * torch.randn(size, generator=generator)) for _ in range(modalities)]


def assert_equal(distribution: NormalInverseGamma, case: dict, tolerance: float = 1e-10) -> None:
    for field, value in zip(FIELDS, distribution, strict=True):
        torch.testing.assert_close(value, double(case[field]), atol=tolerance, rtol=0)


def test_from_raw__matches_the_released_head() -> None:
    case = GOLDEN["head"]
    assert_equal(NormalInverseGamma.from_raw(double(case["raw"]), minimum=0.0), case)


def test_combine_nig__matches_the_released_fold() -> None:
    case = GOLDEN["summation"]
    parts = [NormalInverseGamma.from_raw(double(raw), minimum=0.0) for raw in case["raw"]]
    assert_equal(combine_nig(parts[:2]), case["two"])
    assert_equal(combine_nig(parts), case["three"])


@pytest.mark.parametrize("case", GOLDEN["criterion"]["distributions"], ids=["first", "second", "third", "folded"])
def test_nig_losses__match_the_released_criterion_in_value_and_gradient(case: dict) -> None:
    fields = [double(case[field], requires_grad=True) for field in FIELDS]
    target, risk = double(GOLDEN["criterion"]["target"]), GOLDEN["criterion"]["risk"]
    nll = nig_nll(NormalInverseGamma(*fields), target)
    regulariser = nig_regulariser(NormalInverseGamma(*fields), target, form="code")
    torch.testing.assert_close(nll, double(case["nll_per_row"]), atol=1e-9, rtol=0)
    torch.testing.assert_close(regulariser, double(case["regulariser_per_row"]), atol=1e-9, rtol=0)
    of_nll = torch.autograd.grad(nll.mean(), fields, retain_graph=True)
    assert_equal(NormalInverseGamma(*of_nll), case["nll_gradient"], 1e-8)
    loss = (nll + risk * regulariser).mean()
    assert loss.item() == pytest.approx(case["loss"], abs=1e-9)
    assert_equal(NormalInverseGamma(*torch.autograd.grad(loss, fields)), case["loss_gradient"], 1e-8)


def test_nig_losses__of_all_modalities_and_their_sum_match_the_released_training_loss() -> None:
    case = GOLDEN["total"]
    raw = [double(values, requires_grad=True) for values in case["raw"]]
    parts = [NormalInverseGamma.from_raw(values, minimum=0.0) for values in raw]
    target, total = double(case["target"]), torch.zeros((), dtype=torch.float64)
    for part in [*parts, combine_nig(parts)]:
        total = total + (nig_nll(part, target) + case["risk"] * nig_regulariser(part, target)).mean()
    total.backward()
    assert total.item() == pytest.approx(case["loss"], abs=1e-9)
    for values, gradient in zip(raw, case["gradient"], strict=True):
        torch.testing.assert_close(values.grad, double(gradient), atol=1e-8, rtol=0)


def test_worked_example() -> None:
    first, second, third = of(A), of(B), of(C)
    fused = combine_nig([first, second])
    expected = {"mean": [5 / 3], "count": [3.0], "shape": [4.0], "scale": [17 / 6]}
    assert_equal(fused, expected)
    assert (fused.aleatoric.item(), fused.epistemic.item()) == pytest.approx((0.944444, 0.314815), abs=1e-6)
    assert (first.aleatoric.item(), first.epistemic.item()) == (1.0, 0.5)
    assert (second.aleatoric.item(), second.epistemic.item()) == (1.0, 1.0)
    target = double([1.5])
    parts = (first, second, fused)
    assert [nig_nll(part, target).item() for part in parts] == pytest.approx([1.037095, 2.3057, 0.938043], abs=1e-6)
    losses = [(nig_nll(part, target) + 0.01 * nig_regulariser(part, target)).item() for part in parts]
    assert losses == pytest.approx([1.067095, 2.3582, 0.95471], abs=1e-6)
    assert sum(losses) == pytest.approx(4.380005, abs=1e-6)
    three = combine_nig([first, second, third])
    assert_equal(three, {"mean": [12 / 7], "count": [3.5], "shape": [7.5], "scale": [34 / 7]})
    assert_equal(combine_nig([first, combine_nig([second, third])]), {f: getattr(three, f).tolist() for f in FIELDS})


def test_nig_regulariser__paper_form_swaps_the_roles() -> None:
    # |1.5 - 3| (1 + 2 * 1.5)
    assert nig_regulariser(of(B), double([1.5]), form="paper").item() == pytest.approx(6.0)
    assert nig_regulariser(of(B), double([1.5])).item() == pytest.approx(5.25)
    assert nig_regulariser(of(B), double([3.0])).item() == 0.0


def test_nig_nll__is_the_student_t_density() -> None:
    part = drawn(1, 50)[0]
    target = torch.randn(50, generator=torch.Generator().manual_seed(1))
    degrees, location, scale = (value.double() for value in part.student_t())
    expected = -StudentT(degrees, location, scale).log_prob(target.double())
    torch.testing.assert_close(nig_nll(NormalInverseGamma(*(f.double() for f in part)), target.double()), expected)
    torch.testing.assert_close(nig_nll(part, target).double(), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("shape", [1.000001, 2.0, 15.9, 16.1, 1e4, 1e8])
def test_nig_nll__keeps_its_digits_in_float32(shape: float) -> None:
    fields = [torch.tensor([value]) for value in (0.5, 3.0, shape, 0.75 * shape)]
    exact = [field.double().requires_grad_() for field in fields]
    single = [field.clone().requires_grad_() for field in fields]
    value = nig_nll(NormalInverseGamma(*single), torch.tensor([1.25]))
    expected = nig_nll(NormalInverseGamma(*exact), double([1.25]))
    torch.testing.assert_close(value.double(), expected, atol=1e-6, rtol=1e-6)
    value.sum().backward()
    expected.sum().backward()
    for own, other in zip(single, exact, strict=True):
        assert own.grad is not None
        torch.testing.assert_close(own.grad.double(), other.grad, atol=1e-6, rtol=1e-5)


def test_nig_nll__agrees_on_both_sides_of_the_series() -> None:
    around = double([15.999999, 16.000001])
    constant = double([0.5, 0.5])
    low, high = nig_nll(NormalInverseGamma(constant, constant, around, constant), double([1.0, 1.0])).tolist()
    assert low == pytest.approx(high, abs=2e-6)
    # At 16 itself the series must have the digits of log-gamma.
    exact = torch.lgamma(double([16.5])) - torch.lgamma(double([16.0]))
    omega = double([2 * 0.5 * 1.5])
    at = NormalInverseGamma(double([0.5]), double([0.5]), double([16.0]), double([0.5]))
    usual = 0.5 * (torch.pi / double([0.5])).log() - 16 * omega.log() + 16.5 * (0.5 * 0.25 + omega).log() - exact
    torch.testing.assert_close(nig_nll(at, double([1.0])), usual, atol=1e-10, rtol=0)


def test_combine_nig__skips_absent_modalities_in_the_fold() -> None:
    parts = drawn(3, 7)
    presence = torch.tensor([[bool(code >> bit & 1) for bit in range(3)] for code in range(1, 8)])
    fused = combine_nig(parts, presence)
    for row, present in enumerate(presence):
        here = [NormalInverseGamma(*(field[row : row + 1] for field in part)) for part in parts]
        chosen = [part for part, on in zip(here, present, strict=True) if on]
        for own, other in zip(fused, combine_nig(chosen), strict=True):
            torch.testing.assert_close(own[row : row + 1], other)
    only_first = combine_nig(parts, torch.tensor([[True, False, False]]).expand(7, 3))
    torch.testing.assert_close(torch.stack(only_first), torch.stack(parts[0]))


def test_combine_nig__nothing_of_an_absent_modality_reaches_result_or_gradient() -> None:
    raw = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    broken = torch.full((2, 4), torch.nan, requires_grad=True)
    parts = [NormalInverseGamma.from_raw(raw), NormalInverseGamma(*broken.unbind(dim=1))]
    fused = combine_nig(parts, torch.tensor([[True, False], [True, False]]))
    nig_nll(fused, torch.zeros(2)).sum().backward()
    assert raw.grad is not None
    assert broken.grad is not None
    assert raw.grad.isfinite().all()
    assert not broken.grad.any()


def test_combine_nig__row_without_any_modality_is_the_neutral_element() -> None:
    leaves = [field.clone().requires_grad_() for field in of(A)]
    fused = combine_nig([NormalInverseGamma(*leaves)] * 2, torch.tensor([[False, False]]))
    assert [field.item() for field in fused] == [0.0, 0.0, -0.5, 0.0]
    torch.stack(fused).sum().backward()
    assert not any(leaf.grad.any() for leaf in leaves if leaf.grad is not None)


def test_combine_nig__does_not_depend_on_the_order_of_modalities() -> None:
    parts = [NormalInverseGamma(*(field.double() for field in part)) for part in drawn(4, 6)]
    expected = torch.stack(combine_nig(parts))
    for order in itertools.permutations(parts):
        torch.testing.assert_close(torch.stack(combine_nig(order)), expected)


def test_combine_nig__disagreement_of_means_raises_both_uncertainties() -> None:
    agreeing, apart = [of(A), of(A)], [of((0.5, *A[1:])), of((1.5, *A[1:]))]  # moved apart by 2 d = 1, count 2
    same, different = combine_nig(agreeing), combine_nig(apart)
    assert same.scale.item() == 2.0
    assert different.scale.item() == pytest.approx(same.scale.item() + 2 * 0.5**2)
    assert different.aleatoric > same.aleatoric
    assert different.epistemic > same.epistemic


def test_combine_nig__modality_without_observations_does_not_move_the_mean() -> None:
    assert combine_nig([of((1.0, 1e-12, 2.0, 1.0)), of(B)]).mean.item() == pytest.approx(3.0)


@pytest.mark.parametrize("size", [-300.0, 300.0])
def test_from_raw__has_finite_losses_for_any_output(size: float) -> None:
    raw = torch.full((1, 4), size, requires_grad=True)
    part = NormalInverseGamma.from_raw(raw)
    (nig_nll(part, torch.zeros(1)) + nig_regulariser(part, torch.zeros(1))).sum().backward()
    assert part.aleatoric.isfinite().all()
    assert part.epistemic.isfinite().all()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()


def test_maps_equal_their_rows() -> None:
    raw = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))  # (M, B, 4, H, W)
    maps = combine_nig([NormalInverseGamma.from_raw(part) for part in raw], torch.ones(3, 2, dtype=torch.bool))
    rows = combine_nig([NormalInverseGamma.from_raw(part.movedim(1, 3).reshape(-1, 4)) for part in raw])
    assert maps.mean.shape == (3, 5, 6)
    torch.testing.assert_close(torch.stack(maps).flatten(1), torch.stack(rows))
    torch.testing.assert_close(nig_nll(maps, maps.mean).flatten(), nig_nll(rows, rows.mean))


def test_nig__keeps_full_precision_under_autocast() -> None:
    raw = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))

    def loss() -> torch.Tensor:
        part = combine_nig([NormalInverseGamma.from_raw(values) for values in raw])
        return nig_nll(part, torch.zeros(6)) + nig_regulariser(part, torch.zeros(6))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss()
        of_half = NormalInverseGamma.from_raw(raw[0].bfloat16())
    assert torch.equal(value, loss())
    assert {field.dtype for field in of_half} == {torch.float32}


def test_nig__refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"outputs are \(2, 3\); they must be \(R, 4, \.\.\.\)"):
        NormalInverseGamma.from_raw(torch.zeros(2, 3))
    with pytest.raises(ShapeError, match=r"presence \(2, 1\)"):
        combine_nig(drawn(2, 2), torch.ones(2, 1, dtype=torch.bool))
    with pytest.raises(ShapeError, match="combine_nig: 0 parts"):
        combine_nig([])
    with pytest.raises(ShapeError, match=r"nig_nll: the distribution has \(3,\).* and the target \(3, 1\)"):
        nig_nll(drawn(1, 3)[0], torch.zeros(3, 1))
