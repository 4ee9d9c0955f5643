"""Scores per modality, as sums and counts that can be added over processes before they are divided."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from robustmm.tasks.task import Task


def true_class_sums(task: Task, logits: Mapping[str, Tensor], target: Tensor, presence: Tensor) -> Tensor:
    """Sum of true-class probabilities, and number of rows, for each modality.

    Args:
        task: Tells rows from logits: samples, or valid pixels.
        logits: Modality -> unimodal logits.
        target: Labels of the batch.
        presence: (B, M) bool; only rows in which a modality is present count for it.

    Returns:
        (2, M) float32: sums, counts.
    """
    sums, counts = [], []
    for column, own in enumerate(logits.values()):
        rows = task.rows(own, target)
        there = presence[rows.sample, column]
        log_probability = rows.logits.float().log_softmax(dim=1).gather(1, rows.target[:, None]).squeeze(1)
        sums.append((log_probability.exp() * there).sum())
        counts.append(there.sum())
    return torch.stack([torch.stack(sums), torch.stack(counts).float()])
