"""Linear models with given weights, in float64, on which the numbers of released code are compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tiny_models as tiny
import torch
from torch import Tensor, nn

from robustmm import (
    Balancer,
    Batch,
    Blueprint,
    Encoder,
    Fusion,
    LateTrunk,
    LossTerm,
    Method,
    MissingPolicy,
    Modality,
    Scaling,
    StepView,
)
from robustmm.models.fusion import NoFusion


def golden(name: str) -> Any:
    """Values of the authors' code; each says where it comes from."""
    return json.loads((Path(__file__).parents[1] / "golden" / f"{name}.json").read_text(encoding="utf-8"))


def exact(values: Any) -> Tensor:
    """A list as float64."""
    return torch.tensor(values, dtype=torch.float64)


def linear_method(
    encoders: Mapping[str, tuple[Any, Any]],
    head: tuple[Any, Any],
    *,
    activation: Callable[[], nn.Module] = nn.Identity,
    policy: MissingPolicy | None = None,
) -> Method:
    """One linear layer and an activation per modality, features side by side, one linear layer behind.

    Args:
        encoders: Modality -> weight, bias.
        head: Weight, bias.
        activation: Behind each encoder.
        policy: What stands in for absent modalities; None means zero features.
    """
    layers = {name: _linear(*parameters) for name, parameters in encoders.items()}
    shapes = {name: layer.in_features for name, layer in layers.items()}
    modalities = tuple(Modality(name, "vector", (size,), Scaling("none")) for name, size in shapes.items())

    def make_trunk(*, only: Sequence[str] | None = None, fused: bool = True) -> LateTrunk:
        stages = {
            name: Encoder(nn.ModuleList([nn.Sequential(layer, activation())]), (layer.out_features,), (0,))
            for name, layer in layers.items()
        }
        fusion: Fusion = tiny.ConcatFusion([own.channels[-1] for own in stages.values()]) if fused else NoFusion()
        return LateTrunk(modalities, stages, fusion, policy or MissingPolicy())

    def make_head(channels: Sequence[int]) -> tiny.LinearHead:
        made = tiny.LinearHead(channels, len(head[0]))
        made.linear = _linear(*head)
        return made

    task = tiny.TinyTask(classes=len(head[0]))
    return Method(Blueprint(modalities, task, make_trunk, make_head, samples=100)).double()


def _linear(weight: Any, bias: Any) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight)).double()
    with torch.no_grad():
        layer.weight.copy_(exact(weight))
        layer.bias.copy_(exact(bias))
    return layer


def layers_of(method: Method) -> dict[str, nn.Linear]:
    """Modality -> its linear layer; ``head`` -> the one behind."""
    return {name: own.stages[0][0] for name, own in method.trunk.encoders.items()} | {"head": method.head.linear}


def batch_of(case: Mapping[str, Any], modalities: Sequence[str]) -> Batch:
    """The inputs and labels of a case; everything is observed."""
    inputs = {name: exact(case[name]) for name in modalities}
    target = torch.tensor(case["label"])
    size = len(target)
    observed = torch.ones(size, len(inputs), dtype=torch.bool)
    return Batch(inputs, observed, target, tuple(f"sample_{row}" for row in range(size)), torch.arange(size))


def step(
    method: Method, balancer: Balancer, batch: Batch, presence: Tensor | None = None, *, epoch: int = 0, number: int = 0
) -> tuple[StepView, Mapping[str, LossTerm]]:
    """Everything of a training step but the optimiser's update; the view and the weighed terms."""
    method.zero_grad(set_to_none=True)
    presence = batch.observed if presence is None else presence
    at = tiny.clock(epoch, number)
    view = StepView(method, batch, presence, at, method.trunk.parameter_groups(), torch.Tensor.backward)
    method.train()

    def edit(level: int, features: Mapping[str, Tensor], presence: Tensor) -> Mapping[str, Tensor]:
        return balancer.modulate_features(level, features, view)

    view.output = method.train_output(batch, presence, edit)
    terms = balancer.weigh(method.losses(view.output, batch, at), view)
    balancer.backward(terms, view)
    view.output = view.output.detached()
    balancer.modulate_gradients(view)
    return view, terms
