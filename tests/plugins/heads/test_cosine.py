"""The head of cosines: lengths do not matter, and zero has no direction."""

import pytest
import torch
from robustmm_plugins.heads.cosine import Cosine, unit_vectors


def with_weight(weight, scale=10.0):
    weight = torch.tensor(weight)
    head = Cosine((9, weight.shape[1]), len(weight), scale)
    with torch.no_grad():
        head.classify.weight.copy_(weight)
    return head


def test_logits__are_scaled_cosines_of_the_last_level():
    head = with_weight([[1.0, 0.0], [0.0, 2.0]])
    logits = head([torch.randn(1, 9), torch.tensor([[3.0, 4.0]])], ())
    torch.testing.assert_close(logits, torch.tensor([[6.0, 8.0]]))
    assert [name for name, _ in head.named_parameters()] == ["classify.weight"]


@pytest.mark.parametrize("factor", [1e-6, 100.0])
def test_lengths__of_features_and_class_vectors_change_nothing(factor):
    feature = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    head = with_weight([[1.0, -2.0, 0.5], [0.3, 0.2, 1.0]])
    scaled = with_weight([[factor, -2 * factor, 0.5 * factor], [0.3, 0.2, 1.0]])
    torch.testing.assert_close(scaled([factor * feature], ()), head([feature], ()))


def test_logits__lie_within_the_scale():
    feature = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    logits = with_weight([[1.0, -2.0, 0.5], [0.3, 0.2, 1.0]], scale=5.0)([feature], ())
    assert logits.abs().max() <= 5 * (1 + 1e-6)


def test_gradient__is_orthogonal_to_the_feature():
    feature = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with_weight([[1.0, -2.0, 0.5], [0.3, 0.2, 1.0]])([feature], ())[:, 0].sum().backward()
    assert feature.grad.abs().max() > 0.1
    torch.testing.assert_close((feature.grad * feature.detach()).sum(dim=1), torch.zeros(4), rtol=0, atol=1e-5)


def test_zero__has_cosine_0_and_gradient_0():
    feature = torch.zeros(2, 3, requires_grad=True)
    logits = with_weight([[1.0, -2.0, 0.5], [0.3, 0.2, 1.0]])([feature], ())
    logits.sum().backward()
    assert not logits.any()
    assert not feature.grad.any()
    assert unit_vectors(torch.tensor([[1e-30, 0.0]])).tolist() == [[0.0, 0.0]]


def test_mixed_precision__computes_cosines_in_float32():
    head = with_weight([[1.0, -2.0, 0.5], [0.3, 0.2, 1.0]])
    feature = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head([feature], ())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, head([feature.float()], ()))


def test_maps__have_a_cosine_per_position():
    head = with_weight([[1.0, 0.0], [0.0, 2.0]])
    level = torch.tensor([[[[3.0, 0.0]], [[4.0, 1.0]]]])  # (1, 2, 1, 2)
    torch.testing.assert_close(head([level], (1, 2)), torch.tensor([[[[6.0, 0.0]], [[8.0, 10.0]]]]))
