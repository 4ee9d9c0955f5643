"""Small models with fusions of the registry, and batches, for tests of adaptation at test time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import tiny_models as tiny
import torch
from torch import nn

from robustmm import Batch, Encoder, Method
from robustmm.methods.method import Blueprint
from robustmm.models.trunk import LateTrunk
from robustmm.plugin_manager import get_plugins


def build(kind: str, name: str, context: dict[str, Any] | None = None, **options: Any) -> Any:
    """A component with some options, the rest being defaults."""
    component = get_plugins().registry.get(kind, name)
    checked = component.options(**options)
    return component.build(**(context or {}), **{key: getattr(checked, key) for key in type(checked).model_fields})


def model(
    count: int = 2, *, fusion: str = "attention", policy: str = "zero_feature", dense: bool = False, seed: int = 0
) -> Method:
    """Plain prediction with BatchNorm statistics of its own; in training mode."""
    torch.manual_seed(seed)
    return settled(Method(parts(count, fusion=fusion, policy=policy, dense=dense)), count, dense=dense)


def parts(count: int, *, fusion: str, policy: str, dense: bool) -> Blueprint:
    """A blueprint with these components behind encoders with BatchNorm."""
    blueprint = tiny.blueprint(count, dense=dense)

    def make_trunk(**kwargs: Any) -> LateTrunk:
        made = tiny.DenseTrunk(blueprint.modalities).encoders if dense else None
        encoders = {one.name: made[one.name] if made else vector_encoder() for one in blueprint.modalities}
        widths = {name: encoder.channels for name, encoder in encoders.items()}
        return LateTrunk(
            blueprint.modalities,
            encoders,
            build("fusion", fusion, {"channels": widths}),
            build("missing_policy", policy, {"channels": widths}),
            dense=dense,
        )

    return replace(blueprint, make_trunk=make_trunk)


def vector_encoder() -> Encoder:
    layers = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 4))
    return Encoder(nn.ModuleList([layers]), (4,), (0,))


def settled(method: Method, count: int, *, dense: bool) -> Method:
    with torch.no_grad():
        for seed in range(3):
            data = tiny.batch(count, dense=dense, seed=100 + seed)
            method(data.inputs, data.observed, size=tuple(data.target.shape[1:]))
    return method


def holed(data: Batch, seed: int) -> Batch:
    """The batch with cells that are really missing; some samples have nothing of a combination."""
    generator = torch.Generator().manual_seed(seed)
    observed = torch.rand(data.observed.shape, generator=generator) < 0.6
    observed[torch.arange(len(data)), torch.arange(len(data)) % observed.shape[1]] = True
    inputs = {
        name: value * observed[:, column].view(-1, *[1] * (value.dim() - 1))
        for column, (name, value) in enumerate(data.inputs.items())
    }
    return Batch(inputs, observed, data.target, data.ids, data.index)


def batches(
    count: int = 2, *, dense: bool = False, sizes: Sequence[int] = (8, 8, 3), holes: bool = False
) -> list[Batch]:
    """Batches of a stream, the last one smaller."""
    whole = [tiny.batch(count, size=size, dense=dense, seed=number) for number, size in enumerate(sizes)]
    return [holed(one, number) for number, one in enumerate(whole)] if holes else whole


def state(method: Method) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items()}
