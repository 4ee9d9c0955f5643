"""What test-time adapters promise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from robustmm.adaptation.adapter import Adapter
from robustmm.adaptation.stream import AdaptedModel, Stream, adapted_parameters, only_adapting
from robustmm.masks import all_combinations, combination_name, presence_of
from robustmm.methods.method import Method
from robustmm.models.fusion import Fusion
from robustmm.models.missing import MissingPolicy
from robustmm.models.trunk import LateTrunk
from robustmm.registry import Component
from robustmm.testing.contract import NotApplicable, build, check, during, require, require_equal_states, require_finite
from robustmm.testing.tiny import WIDTH, DenseTrunk, Setting, batch, blueprint, settings, vector_encoder
from robustmm.types import Combination

#: Batches of a stream, the last of which is a single sample.
SIZES = (8, 6, 1)
LEVELS = {False: 1, True: 2}


class WeighedSum(Fusion):
    """``sum_m W_m f_m`` over the present modalities: a fusion that has something to adapt."""

    def __init__(self, names: Sequence[str], levels: int) -> None:
        super().__init__((WIDTH,) * levels)
        self.layers = nn.ModuleDict(
            {f"{name}_{level}": nn.Linear(WIDTH, WIDTH) for name in names for level in range(levels)}
        )

    def forward(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> Tensor:
        """See `Fusion.forward`."""
        parts: list[Tensor] = []
        for column, (name, feature) in enumerate(features.items()):
            part = self.layers[f"{name}_{level}"](feature.movedim(1, -1)).movedim(-1, 1)
            parts.append(part * presence[:, column].view(-1, *[1] * (part.dim() - 1)))
        return reduce(torch.add, parts)


def model(setting: Setting) -> Method:
    """Plain prediction with a fusion that has parameters, and BatchNorm statistics of its own; in training mode."""

    def make_trunk(**kwargs: Any) -> LateTrunk:
        made = DenseTrunk(setting.modalities).encoders if setting.dense else None
        encoders = {name: made[name] if made else vector_encoder() for name in setting.names}
        fusion = WeighedSum(setting.names, LEVELS[setting.dense])
        return LateTrunk(setting.modalities, encoders, fusion, MissingPolicy(), dense=setting.dense)  # type: ignore[arg-type]  # a ModuleDict's parts are Modules

    method = Method(replace(blueprint(setting), make_trunk=make_trunk))
    with torch.no_grad():
        method(batch(setting).inputs, torch.ones(len(batch(setting)), setting.count).bool(), size=setting.size)
    return method


def combinations(setting: Setting) -> list[Combination]:
    """Every combination of a setting."""
    return list(all_combinations(setting.names))


@contextmanager
def streams(component: Component, method: Method, count: int) -> Iterator[list[Stream]]:
    """Fresh streams on one model."""
    adapters: list[Adapter] = [build(component) for _ in range(count)]
    parameters = adapted_parameters(adapters[0], method)
    with only_adapting(method, parameters):
        shared = AdaptedModel(method, parameters)
        yield [Stream(adapter, shared) for adapter in adapters]


def predict(stream: Stream, setting: Setting, combination: Combination, number: int) -> Tensor:
    """Logits of one batch of a stream that shows one combination."""
    data = batch(setting, seed=number, size=SIZES[number])
    presence = presence_of(combination, setting.names).expand(len(data), -1)
    return stream(stream.model.encode(data.inputs, data.observed, setting.size), presence).logits


def whole_stream(
    component: Component, method: Method, setting: Setting, combination: Combination, *, drawn: int = 0
) -> Tensor:
    """Logits of all batches, one after the other, after so many draws from torch's global generator."""
    with streams(component, method, 1) as (stream,):
        torch.rand(drawn)
        logits = [predict(stream, setting, combination, number) for number in range(len(SIZES))]
    return torch.cat(logits)


@check("adapter")
def predicts_every_combination(component: Component) -> None:
    """Logits of the target's size, finite and without a graph, also of a single sample and of one modality alone."""
    for setting in settings(component):
        method = model(setting)
        for combination in combinations(setting):
            with during(f"{setting}, {combination_name(combination)}"):
                logits = whole_stream(component, method, setting, combination)
                expected = (sum(SIZES), setting.outputs, *setting.size)
                require(logits.shape == expected, f"logits {tuple(logits.shape)}, not {expected}")
                require_finite(logits, "logits")
                require(not logits.requires_grad, "logits hold on to a graph")


@check("adapter")
def changes_nothing_but_its_parameters(component: Component) -> None:
    """While it adapts, every other weight and all BatchNorm statistics stay."""
    for setting in settings(component):
        with during(setting):
            method = model(setting)
            own = set(map(id, build(component).parameters(method)))
            before = {name: value.clone() for name, value in method.state_dict().items()}
            adapted = {name for name, parameter in method.named_parameters() if id(parameter) in own}
            with streams(component, method, 1) as (stream,):
                for number in range(len(SIZES)):
                    predict(stream, setting, setting.names, number)
                require(not any(part.training for part in method.modules()), "it leaves evaluation mode")
                kept = {name: value for name, value in method.state_dict().items() if name not in adapted}
                require_equal_states(kept, {name: before[name] for name in kept}, "state while adapting")


@check("adapter")
def leaves_the_model_as_it_was(component: Component) -> None:
    """Afterwards weights, statistics, modes and what trains are as before, and no gradient is left behind."""
    for setting in settings(component):
        with during(setting):
            method = model(setting)
            method.head.eval()
            next(method.head.parameters()).requires_grad_(False)
            before = {name: value.clone() for name, value in method.state_dict().items()}
            modes = [part.training for part in method.modules()]
            trains = [parameter.requires_grad for parameter in method.parameters()]
            whole_stream(component, method, setting, setting.names)
            require_equal_states(dict(method.state_dict()), before, "state afterwards")
            require([part.training for part in method.modules()] == modes, "modes are changed")
            require([one.requires_grad for one in method.parameters()] == trains, "requires_grad is changed")
            require(all(one.grad is None for one in method.parameters()), "a gradient is left behind")


@check("adapter")
def repeats_itself(component: Component) -> None:
    """Two streams of the same batches give the same logits, bit for bit, whatever torch's global generator says."""
    for setting in settings(component):
        with during(setting):
            method = model(setting)
            first = whole_stream(component, method, setting, setting.names)
            again = whole_stream(component, method, setting, setting.names, drawn=3)
            require(torch.equal(first, again), "logits differ")


@check("adapter")
def streams_do_not_mix(component: Component) -> None:
    """Streams that take turns on one model give what each gives alone."""
    for setting in settings(component, counts=(2, 3)):
        with during(setting):
            method = model(setting)
            alone = {one: whole_stream(component, method, setting, one) for one in combinations(setting)}
            parts: dict[Combination, list[Tensor]] = {one: [] for one in alone}
            with streams(component, method, len(alone)) as made:
                for number in range(len(SIZES)):
                    for combination, stream in zip(alone, made, strict=True):
                        parts[combination].append(predict(stream, setting, combination, number))
            for combination, logits in alone.items():
                name = combination_name(combination)
                require(torch.equal(torch.cat(parts[combination]), logits), f"{name} differs beside other streams")


@check("adapter")
def forgets_where_it_says_so(component: Component) -> None:
    """With ``reset`` of ``batch`` a batch's logits do not depend on the batches before it."""
    if build(component).reset != "batch":
        raise NotApplicable("its reset is never: a batch goes on from the one before it")
    for setting in settings(component):
        with during(setting):
            method = model(setting)
            with streams(component, method, 1) as (stream,):
                later = [predict(stream, setting, setting.names, number) for number in (0, 1)][-1]
            with streams(component, method, 1) as (stream,):
                require(torch.equal(predict(stream, setting, setting.names, 1), later), "the second batch differs")
