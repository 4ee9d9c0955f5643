"""READ: test-time adaptation of the fusion to modalities that are less reliable than in training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from robustmm import Adapter, Component, Options, Output, Predict, class_balance, confidence_adaptation, hookimpl

BETAS = (0.9, 0.999)


class ReadOptions(Options):
    """Options of READ."""

    lr: float = Field(1e-4, ge=0, description="learning rate of Adam; 0 changes nothing")
    steps: int = Field(1, gt=0, description="updates per batch")
    gamma: float = Field(
        math.exp(-1),
        gt=0,
        lt=1,
        description="the loss raises a sample's largest probability where it is above gamma, and lowers it below",
    )
    balance_weight: float = Field(
        1.0, ge=0, description="weight of equal shares of the classes in a batch; 0 is advised for segmentation"
    )
    balance: Literal["softmax_sum", "mean"] = Field(
        "softmax_sum",
        description="shares of the classes: softmax of the summed probabilities, as released, or their mean",
    )
    reset: Literal["never", "batch"] = Field(
        "never", description="never: a batch goes on from the one before it; batch: each begins with trained weights"
    )


class Read(Adapter):
    """Adam on the fusion's parameters, attention's queries, keys and values, by ``confidence - weight * balance``.

    The prediction is that of a second pass, after the update. Logits of a map count position by position, void ones
    too, since nothing tells at test time which they are.

    Source:
        Test-time Adaption against Multi-modal Reliability Bias (ICLR 2024), XLearning-SCU/2024-ICLR-READ. Deviations:
        the adapted parameters are named by the fusion, not found by the length of a sequence; scores are weighted by
        samples, not averaged over batches. The released fusion is one attention block over tokens of a transformer.
    """

    def __init__(
        self,
        lr: float,
        steps: int,
        gamma: float,
        balance_weight: float,
        balance: Literal["softmax_sum", "mean"],
        reset: Literal["never", "batch"],
    ) -> None:
        self.lr = lr
        self.steps = steps
        self.gamma = gamma
        self.balance_weight = balance_weight
        self.balance = balance
        self.reset = reset

    def prepare(self, parameters: Sequence[nn.Parameter]) -> None:
        """A fresh optimiser."""
        device = parameters[0].device.type
        self.optimizer = torch.optim.Adam(parameters, lr=self.lr, betas=BETAS)
        self.scaler = torch.amp.GradScaler(device)

    def adapt(self, predict: Predict) -> Output:
        """Update by the batch, then predict it."""
        for _ in range(self.steps):
            self._update(predict().logits)
        with torch.no_grad():
            return predict()

    def _update(self, logits: Tensor) -> None:
        if not logits.requires_grad:
            return  # nothing that is adapted takes part in this prediction
        loss = self.loss(logits)
        self.optimizer.zero_grad()
        if logits.dtype is torch.float16:  # small gradients would become 0
            torch.autograd.backward(self.scaler.scale(loss))
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            torch.autograd.backward(loss)
            self.optimizer.step()

    def loss(self, logits: Tensor) -> Tensor:
        """What a batch of logits, (B, C) or (B, C, ...), is to make smaller."""
        probability = logits.float().softmax(dim=1).movedim(1, -1).flatten(0, -2)  # (R, C)
        loss = confidence_adaptation(probability, gamma=self.gamma)
        if self.balance_weight == 0:
            return loss
        _warn_of_balance(logits)
        return loss - self.balance_weight * class_balance(probability, form=self.balance)


def _warn_of_balance(logits: Tensor) -> None:
    if logits.dim() > 2:
        warnings.warn(
            "adapter read: balance_weight is above 0 for dense prediction, so the classes of all pixels are drawn "
            "towards equal shares, which a background never has; set balance_weight to 0",
            stacklevel=2,
        )
    elif len(logits) == 1:
        warnings.warn(
            "adapter read: a batch of one sample has no shares of classes to balance, the term only makes this sample "
            "less certain; use another evaluation.batch_size, or a balance_weight of 0",
            stacklevel=2,
        )


@hookimpl
def robustmm_register_adapters(register: Callable[[Component], None]) -> None:
    """Offer READ."""
    register(
        Component(
            "read",
            Read,
            ReadOptions,
            "Adapts the fusion so that confident predictions gain and doubtful ones lose.",
            "Test-time Adaption against Multi-modal Reliability Bias, ICLR 2024; XLearning-SCU/2024-ICLR-READ",
            fidelity="code",
            requires=frozenset({"class_probability"}),
        )
    )
