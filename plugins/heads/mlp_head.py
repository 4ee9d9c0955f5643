"""A multi-layer perceptron as head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from robustmm import Component, Head, Options, hookimpl

from ._dense import predict


class MLPHeadOptions(Options):
    """Options of the head.

    Args:
        hidden: Widths of the hidden layers.
        dropout: Share of activations set to zero in training, after each hidden layer.
    """

    hidden: tuple[Annotated[int, Field(gt=0)], ...] = Field(
        (128,), min_length=1, description="widths of the hidden layers"
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="share of activations set to zero in training, after each hidden layer"
    )


class MLPHead(Head):
    """Linear and ReLU layers on the last fused level, then a linear one; not splittable into unimodal logits.

    Args:
        channels: Channels of the fused levels.
        num_outputs: C.
        hidden: Widths of the hidden layers.
        dropout: After each hidden layer.
    """

    def __init__(self, channels: Sequence[int], num_outputs: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width_in, width_out in zip((channels[-1], *hidden), hidden, strict=False):
            layers += [nn.Linear(width_in, width_out), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
        self.layers = nn.Sequential(*layers, nn.Linear(hidden[-1], num_outputs))

    def forward(self, fused: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
        """See `Head.forward`."""
        return predict(self.layers, fused, size)


@hookimpl
def robustmm_register_heads(register: Callable[[Component], None]) -> None:
    """Offer the perceptron."""
    register(Component("mlp_head", MLPHead, MLPHeadOptions, "Hidden layers in front of the linear one.", "standard"))
