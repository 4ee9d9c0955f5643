"""Student's t in logits, and its likelihood against scipy's."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from robustmm.errors import ShapeError
from robustmm.losses.student_t import StudentT, pack_student_t, split_student_t, student_t_nll


def distribution(log_df: float, *, rows: int = 5, dtype: torch.dtype = torch.float64) -> StudentT:
    generator = torch.Generator().manual_seed(0)
    location, log_scale = torch.randn(2, rows, 2, generator=generator, dtype=dtype)
    return StudentT(location, log_scale, torch.full_like(location, log_df))


def test_pack__lays_locations_before_scales_before_degrees_of_freedom():
    packed = pack_student_t(
        StudentT(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]), torch.tensor([[5.0, 6.0]]))
    )
    assert packed.tolist() == [[1, 2, 3, 4, 5, 6]]
    found = split_student_t(packed, 2)
    assert found is not None
    assert [part.tolist() for part in found] == [[[1, 2]], [[3, 4]], [[5, 6]]]


def test_split__locations_alone_are_no_distribution():
    assert split_student_t(torch.zeros(4, 3), 3) is None


@pytest.mark.parametrize("shape", [(4, 2), (4, 4), (4, 3, 3), (4,)])
def test_split__refuses_other_layouts(shape):
    with pytest.raises(ShapeError, match=r"\(B, 3\), or \(B, 9\)"):
        split_student_t(torch.zeros(shape), 3)


@pytest.mark.parametrize("log_df", [-4.0, -1.0, 0.0, 1.0, 3.3, 3.5, 6.0, 12.0, 19.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 3e-6)])
def test_nll__is_that_of_scipy(log_df, dtype, tolerance):
    ours = distribution(log_df, dtype=dtype)
    target = torch.linspace(-8, 8, 10, dtype=dtype).view(5, 2)
    location, log_scale, _ = (part.double().numpy() for part in ours)
    expected = -stats.t.logpdf(target.double().numpy(), math.exp(log_df), location, np.exp(log_scale))
    np.testing.assert_allclose(student_t_nll(ours, target).numpy(), expected, rtol=tolerance, atol=tolerance)


def test_nll__of_a_cauchy_worked_by_hand():
    # One degree of freedom, scale 2, error 2: density 1 / (2 pi (1 + 1)).
    ours = StudentT(torch.zeros(1, 1), torch.full((1, 1), math.log(2)), torch.zeros(1, 1))
    assert student_t_nll(ours, torch.full((1, 1), 2.0)).item() == pytest.approx(math.log(4 * math.pi))


def test_nll__with_many_degrees_of_freedom_is_the_normal_one():
    ours = distribution(50.0)
    target = torch.ones(5, 2, dtype=torch.float64)
    expected = -torch.distributions.Normal(ours.location, ours.log_scale.exp()).log_prob(target)
    torch.testing.assert_close(student_t_nll(ours, target), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("log_df", [-2.0, 0.5, 3.3, 3.5, 8.0])
def test_nll__gradients_are_those_of_differences(log_df):
    parts = [part.clone().requires_grad_() for part in distribution(log_df)]
    target = torch.linspace(-2, 2, 10, dtype=torch.float64).view(5, 2)
    assert torch.autograd.gradcheck(lambda *given: student_t_nll(StudentT(*given), target), parts, atol=1e-6)


def test_nll__is_finite_with_finite_gradients_far_out():
    extreme = torch.tensor([[-30.0, 30.0, 100.0, -30.0]])
    parts = [part.clone().requires_grad_() for part in (torch.full_like(extreme, 5.0), extreme * 0.2, extreme)]
    nll = student_t_nll(StudentT(*parts), torch.tensor([[-1e3, 1e3, 0.0, 5.0]]))
    nll.sum().backward()
    assert nll.isfinite().all()
    assert all(part.grad.isfinite().all() for part in parts)


def test_nll__leaves_half_precision():
    ours = StudentT(*(part.to(torch.bfloat16) for part in distribution(1.0)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert student_t_nll(ours, torch.zeros(5, 2)).dtype == torch.float32
