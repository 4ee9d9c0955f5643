"""Models of two modalities, audio and visual, as in released balancing code; one step on the values of tests/golden."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tiny_models as tiny
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from robustmm import (
    Balancer,
    Batch,
    Blueprint,
    Encoder,
    Fusion,
    Head,
    LossTerm,
    Method,
    MissingPolicy,
    Modality,
    Scaling,
    where_present,
)
from robustmm.engine.step import StepContext, train_step
from robustmm.models.trunk import LateTrunk

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ("audio", "visual")


def golden(name: str) -> dict[str, Any]:
    """Values of ``tests/golden/<name>.json``."""
    values: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return values


class ReleasedFusion(Fusion):
    """The fusion modules of the released code, logits included; what is absent is left out as its unimodal logits do.

    Args:
        form: ``concat``, ``sum``, ``share``, ``gated``, ``bilinear``; ``side_by_side`` has no layer and gives features.
        weights: Linear layers by name, such as ``fc_out``.
    """

    def __init__(self, form: str, weights: Mapping[str, Tensor]) -> None:
        super().__init__((4,) if form == "side_by_side" else (3,))
        self.form = form
        self.layers = nn.ModuleDict({name: nn.Linear(*weight.shape[::-1]) for name, weight in weights.items()})

    def forward(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> Tensor:
        (audio, visual), (heard, seen) = features.values(), presence.unbind(dim=1)
        fc, zero = self.layers, audio.new_zeros(())
        if self.form in ("concat", "side_by_side"):
            both = torch.cat([audio, visual], dim=1)
            return fc["fc_out"](both) if self.form == "concat" else both
        if self.form in ("sum", "share"):
            first, second = ("fc_x", "fc_y") if self.form == "sum" else ("fc_out", "fc_out")
            return where_present(fc[first](audio), heard, zero) + where_present(fc[second](visual), seen, zero)
        if self.form == "gated":
            own, other = fc["fc_x"](audio), fc["fc_y"](visual)
            return fc["fc_out"](where_present(own, heard, other).sigmoid() * where_present(other, seen, own))
        own, other = where_present(audio, heard, visual), where_present(visual, seen, audio)
        return fc["fc_out"](fc["fc"]((own[:, :, None] * other[:, None]).flatten(1)))


class FusedLogits(Head):
    """What the fusion gave."""

    def forward(self, fused: list[Tensor], size: tuple[int, ...]) -> Tensor:
        return fused[-1]


def _encoder(parameters: Sequence[Tensor]) -> Encoder:
    """A linear layer, or two with a tanh between."""
    linear = [nn.Linear(*weight.shape[::-1]) for weight in parameters if weight.dim() == 2]
    layers = nn.Sequential(linear[0], nn.Tanh(), linear[1]) if len(linear) == 2 else linear[0]
    return Encoder(nn.ModuleList([layers]), (linear[-1].out_features,), (0,))


class Pair:
    """A model with the parameters of a golden case, in float64.

    Args:
        case: With ``parameters``, ``audio``, ``visual`` and ``label``.
        form: See `ReleasedFusion`.
        used: Golden name of a parameter -> its name in the model; others are not looked at.
        heads: Whether there is a linear head per modality.
    """

    def __init__(self, case: Mapping[str, Any], form: str, used: Mapping[str, str], *, heads: bool = False) -> None:
        weights = {name: torch.tensor(value, dtype=torch.float64) for name, value in case["parameters"].items()}
        inputs = {name: torch.tensor(case[name], dtype=torch.float64) for name in NAMES}
        self.case, self.used = case, used
        target = torch.tensor(case["label"])
        ids = tuple(map(str, range(len(target))))
        self.batch = Batch(inputs, torch.ones(len(target), 2, dtype=torch.bool), target, ids, torch.arange(len(target)))
        self.method = self._method(form, weights, heads)
        own = self.method.double().state_dict()
        self.method.load_state_dict({**own, **{name: weights[key] for key, name in used.items()}})

    def _method(self, form: str, weights: Mapping[str, Tensor], heads: bool) -> Method:
        modalities = tuple(Modality(n, "vector", x.shape[1:], Scaling("none")) for n, x in self.batch.inputs.items())
        layers = {
            name.removeprefix("trunk.fusion.layers.").removesuffix(".weight"): weights[key]
            for key, name in self.used.items()
            if name.startswith("trunk.fusion.") and name.endswith("weight")
        }
        encoders = {
            name: _encoder([w for key, w in weights.items() if key.startswith(f"{name}_net")]) for name in NAMES
        }
        trunk = LateTrunk(modalities, encoders, ReleasedFusion(form, layers), MissingPolicy())
        task = tiny.TinyTask()
        parts = Blueprint(modalities, task, lambda **_: trunk, lambda channels: tiny.LinearHead(channels, 3))
        method = Method(parts, trunk=trunk, head=None if form == "side_by_side" else FusedLogits())
        if heads:
            method.unimodal_heads = parts.make_heads(trunk)
        return method

    def step(self, balancer: Balancer, *, epoch: int = 0, clip_norm: float | None = None) -> Mapping[str, LossTerm]:
        """One step of the engine; gradients stay at the parameters."""
        fabric = Fabric(accelerator="cpu", devices=1)
        optimizer = fabric.setup_optimizers(torch.optim.SGD(self.method.parameters(), lr=0.1))
        groups = self.method.trunk.parameter_groups()
        context = StepContext(fabric, self.method.train(), balancer, optimizer, groups, clip_norm, 0, tiny.clock(epoch))
        return train_step(context, [self.batch], self.batch.observed)

    def compare(self, expected: Mapping[str, Any]) -> None:
        """Gradients against golden ones by the golden names; a parameter that the release leaves without is skipped."""
        own = dict(self.method.named_parameters())
        for key, name in self.used.items():
            gradient = own[name].grad
            assert gradient is not None, key
            if expected[key] is None:
                continue
            wanted = torch.tensor(expected[key], dtype=torch.float64)
            torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-11, msg=key)


def renamed(case: Mapping[str, Any]) -> dict[str, str]:
    """ARL's and DGL's names of parameters, and theirs in the model; without a layer that concatenation never uses."""
    places = {"fusion_module.": "trunk.fusion.layers."}
    places |= {f"{name}_net.fc.": f"trunk.encoders.{name}.stages.0." for name in NAMES}
    return {
        key: key.replace(place, own)
        for key in case["parameters"]
        for place, own in places.items()
        if key.startswith(place) and "fc_auxi" not in key
    }
