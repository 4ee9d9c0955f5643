"""From a checked configuration to a network: encoders, trunk and head, as many as its method asks for.

No data set is read here. What a network must know of one is a `Signature`, so that a trained model is built without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from robustmm.builder import Builder
from robustmm.config.schema import DEFAULT_ENCODER, MODALITY_KINDS, RunConfig
from robustmm.errors import ConfigError, did_you_mean
from robustmm.methods.method import Blueprint, Method
from robustmm.models.encoder import Encoder
from robustmm.models.fusion import NoFusion
from robustmm.models.missing import MissingPolicy
from robustmm.models.trunk import Trunk, TrunkParts
from robustmm.registry import Registry
from robustmm.signature import Signature
from robustmm.tasks.task import Task
from robustmm.types import Modality

#: Encoder of a modality that the configuration does not name, by the modality's kind.
DEFAULT_ENCODERS = {"vector": "mlp", "sequence": "cnn1d", "image": "small_cnn", "spectrogram": "small_cnn"}

#: What a balancer requires that trains a head per modality beside the model's own.
UNIMODAL_HEADS = "unimodal_heads"

MeanAndVariance = tuple[Tensor, Tensor]


def make_task(config: RunConfig, builder: Builder, default: str, classes: tuple[str, ...]) -> Task:
    """The task that the configuration names, or that of the data set, ``default``."""
    task: Task = builder.component("task", "task", config.task or default)(classes=classes)
    return task


def make_method(config: RunConfig, builder: Builder, blueprint: Blueprint) -> Method:
    """The method with fresh weights, and the heads that its balancer trains."""
    method: Method = builder.component("method", "method", config.method)(blueprint=blueprint)
    if UNIMODAL_HEADS in builder.registry.get("balancer", config.balancer.name).requires:
        method.unimodal_heads = blueprint.make_heads(method.trunk)
    return method


def untrained(config: RunConfig, registry: Registry, signature: Signature) -> Method:
    """The network of a run as its weights are loaded into it: no data are read, and no weights to start from.

    The random generators stand afterwards where they stood.

    Raises:
        ConfigError: components do not fit the modalities; the signature is of another run.
    """
    config = without_initial_weights(config)
    builder = Builder(registry)
    with torch.random.fork_rng():
        task = make_task(config, builder, signature.task, signature.classes)
        blueprint = make_blueprint(config, builder, signature.modalities, task, {}, signature.samples)
        return make_method(config, builder, blueprint)


def without_initial_weights(config: RunConfig) -> RunConfig:
    """The configuration with ``weights: none`` for every encoder that has that option: trained ones take their place,
    and a file that training began with need not be there.
    """
    encoders = {
        key: replace(section, options=section.options.model_copy(update={"weights": "none"}))
        if "weights" in type(section.options).model_fields
        else section
        for key, section in config.model.encoders.items()
    }
    return config.model_copy(update={"model": config.model.model_copy(update={"encoders": encoders})})


def make_blueprint(
    config: RunConfig,
    builder: Builder,
    modalities: tuple[Modality, ...],
    task: Task,
    statistics: Mapping[str, MeanAndVariance],
    samples: int,
) -> Blueprint:
    """The parts of a run's networks.

    Args:
        config: Checked.
        builder: Notes which components act.
        modalities: Columns of the run.
        task: Built.
        statistics: Modality -> mean and variance over the training part; empty where weights are loaded afterwards.
        samples: Size of the training part.

    Raises:
        ConfigError: trunk, head, fusion or encoders are not for the task or the modalities.
    """
    make_encoders = {modality.name: _encoder_factory(config, builder, modality) for modality in modalities}
    make_trunk_of = builder.component("trunk", "trunk", config.model.trunk)
    make_fusion = builder.component("fusion", "fusion", config.model.fusion)
    make_policy = builder.component("missing_policy", "missing_policy", config.model.missing_policy)
    make_head = builder.component("head", "head", config.model.head or _own_head(config, builder) or task.default_head)
    _check_form(builder, task, modalities)
    parts = TrunkParts(
        modalities,
        task.dense,
        make_encoder=lambda name: make_encoders[name](),
        make_fusion=lambda channels: make_fusion(channels=channels),
        make_policy=lambda channels: make_policy(channels=channels),
        skip_absent=config.model.skip_absent,
    )

    def make_trunk(*, only: Sequence[str] | None = None, fused: bool = True) -> Trunk:
        chosen = [modality for modality in modalities if only is None or modality.name in only]
        own = replace(parts, modalities=tuple(chosen))
        if not fused:
            own = replace(own, make_fusion=lambda channels: NoFusion(), make_policy=lambda channels: MissingPolicy())
        trunk: Trunk = make_trunk_of(parts=own)
        for name, (mean, variance) in statistics.items():
            if name in trunk.modalities:
                trunk.scalers.get_submodule(name).set(mean, variance)  # type: ignore[operator]  # a Scaler's own method
        return trunk

    def new_head(channels: tuple[int, ...], outputs: int | None = None) -> Any:
        return make_head(channels=channels, num_outputs=task.num_outputs if outputs is None else outputs)

    return Blueprint(modalities, task, make_trunk, new_head, samples)


def _own_head(config: RunConfig, builder: Builder) -> str | None:
    """The head that the method requires by name, which is then its default."""
    required = builder.registry.get("method", config.method.name).requires
    return next((capability.removeprefix("head:") for capability in required if capability.startswith("head:")), None)


def _check_form(builder: Builder, task: Task, modalities: Sequence[Modality]) -> None:
    """Refuse trunk, head and fusion that are not for the task's form, global or dense, and modalities that are no maps.

    Raises:
        ConfigError: names every such part, and what to use instead.
    """
    problems = []
    form = "dense" if task.dense else "global"
    for kind, wanted in (("trunk", form), ("head", form), ("fusion", "map" if task.dense else "vector")):
        component = builder.used[kind]
        if component.suits and wanted not in component.suits:
            fitting = [one.name for one in builder.registry.all(kind) if not one.suits or wanted in one.suits]
            problems.append(
                f"model.{kind}: '{component.name}' is for {' or '.join(sorted(component.suits))} "
                f"{'features' if kind == 'fusion' else 'prediction'}, and the task '{builder.used['task'].name}' is "
                f"{form}; use one of {', '.join(fitting)}"
            )
    if task.dense:
        problems += [
            f"data.modalities: '{one.name}' is of kind {one.kind}; dense prediction fuses maps, of kind image or "
            f"spectrogram: leave it out"
            for one in modalities
            if len(one.shape) != 3
        ]
    if problems:
        raise ConfigError(problems)


def check_encoder_names(config: RunConfig, names: Sequence[str]) -> None:
    """Refuse an encoder that would act nowhere; one for a modality that the run leaves out may stay."""
    problems = [
        f"model.encoders.{key}: no modality '{key}'{did_you_mean(key, names)} (the data set has {', '.join(names)}; "
        f"a kind such as vector or 'default' may stand for several)"
        for key in config.model.encoders
        if key not in (*names, *MODALITY_KINDS, DEFAULT_ENCODER)
    ]
    if problems:
        raise ConfigError(problems)


def _encoder_factory(config: RunConfig, builder: Builder, modality: Modality) -> Callable[[], Encoder]:
    chosen = config.model.encoders
    key = next((key for key in (modality.name, modality.kind, DEFAULT_ENCODER) if key in chosen), None)
    section = DEFAULT_ENCODERS[modality.kind] if key is None else chosen[key]
    make = builder.component(f"encoder of {modality.name}", "encoder", section)
    component = builder.used[f"encoder of {modality.name}"]
    if component.suits and modality.kind not in component.suits:
        fitting = [c.name for c in builder.registry.all("encoder") if not c.suits or modality.kind in c.suits]
        raise ConfigError(
            [
                f"model.encoders.{key or modality.name}: encoder '{component.name}' takes "
                f"{' or '.join(sorted(component.suits))}, but modality '{modality.name}' is of kind {modality.kind}; "
                f"use one of {', '.join(fitting)}"
            ]
        )
    return lambda: make(modality=modality)
