"""Class weights of 0."""

from __future__ import annotations

import pytest
import torch

from robustmm.tasks.classification import ClassificationTask


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss__is_0_where_every_label_weighs_nothing(smoothing: float) -> None:
    task = ClassificationTask(("a", "b"), class_weights=(0.0, 1.0), label_smoothing=smoothing)
    logits = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = task.loss(logits, torch.zeros(3, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.tolist() == torch.zeros(3, 2).tolist()


def test_loss__without_smoothing_ignores_a_class_that_weighs_nothing() -> None:
    task = ClassificationTask(("a", "b"), class_weights=(0.0, 2.0))
    logits = torch.tensor([[5.0, 0.0], [0.0, 0.0]])
    assert task.loss(logits, torch.tensor([0, 1])).item() == pytest.approx(0.6931472)
    assert task.loss(logits, torch.tensor([0, 0])).item() == 0
