"""From a checked configuration to objects: names become components, components become a run's parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer

from robustmm.adaptation.adapter import Adapter
from robustmm.adaptation.stream import REPAIR
from robustmm.balancing.balancer import Balancer
from robustmm.builder import Builder
from robustmm.config.capabilities import check_capabilities
from robustmm.config.schema import RunConfig
from robustmm.data.collate import Collate
from robustmm.data.dataset import DataSplits
from robustmm.data.loaders import PartLoader
from robustmm.data.parts import Parts, split_parts
from robustmm.engine.optim import Schedule
from robustmm.engine.recipe import Recipe
from robustmm.engine.scores import directions_of
from robustmm.errors import ConfigError, PluginError, did_you_mean
from robustmm.masks import AGGREGATES, CombinationSampler, all_combinations, combination_name, parse_combination
from robustmm.methods.method import Method
from robustmm.metrics.metric import Metric
from robustmm.models.scaler import Moments
from robustmm.network import MeanAndVariance, check_encoder_names, make_blueprint, make_method, make_task
from robustmm.registry import Component, Registry
from robustmm.seeding import generator_for, seed_everything
from robustmm.signature import Signature
from robustmm.tasks.task import Task
from robustmm.types import Batch, Combination

#: With more modalities than this, combinations to evaluate must be named: 4095 is a long evaluation already.
MOST_FOR_ALL = 12


@dataclass(frozen=True)
class Assembly:
    """A run's parts, on the CPU.

    Args:
        config: As checked.
        parts: Training, validation, test.
        method: Fresh weights, from the run's seed.
        balancer: See `robustmm.Balancer`.
        sampler: Which combination each training sample shows.
        sampler_name: Named by the configuration, or the method's own.
        recipe: The numbers of training.
        combinations: What is evaluated, in order.
        make_metrics: Fresh plugin metrics by name.
        make_adapter: A fresh test-time adapter; None where the configuration has none.
        components: Place -> component; a place is a kind, or begins with one, such as ``encoder of rgb``.
    """

    config: RunConfig
    parts: Parts
    method: Method
    balancer: Balancer
    sampler: CombinationSampler
    sampler_name: str
    recipe: Recipe
    combinations: list[Combination]
    make_metrics: Callable[[], Mapping[str, Metric]]
    make_adapter: Callable[[], Adapter] | None
    components: Mapping[str, Component]

    def loader(self, part: str, *, pin_memory: bool = False) -> PartLoader:
        """Batches of ``train``, ``validation`` or ``test``."""
        data, evaluation = self.config.data, self.config.evaluation
        training = part == "train"
        return PartLoader(
            getattr(self.parts, part),
            self.parts.modalities,
            batch_size=data.batch_size if training else evaluation.batch_size or data.batch_size,
            seed=self.config.seed,
            workers=data.workers,
            pin_memory=pin_memory if data.pin_memory is None else data.pin_memory,
        )

    def test_stream(self) -> Iterator[Batch]:
        """The whole test part once, in an order drawn from the run's seed: what a model adapts to."""
        order = torch.randperm(len(self.parts.test), generator=generator_for(self.config.seed, "test stream"))
        return self.loader("test").ordered(order, whole=True)

    def signature(self) -> Signature:
        """What the trained model takes and gives; reads a sample of the test part."""
        parts = self.parts
        batch = Collate(parts.modalities)([parts.test[0, 0]])
        sizes = {
            one.name: (batch.inputs[one.name].shape[2], batch.inputs[one.name].shape[3])
            for one in parts.modalities
            if len(one.shape) == 3
        }
        return Signature(
            parts.modalities,
            self.components["task"].name,
            parts.classes,
            len(parts.train),
            parts.colours,
            {
                one.name: sizes[one.name]
                for one in parts.modalities
                if one.name in sizes and sizes[one.name] != one.shape[1:]
            },
            {
                **parts.facts_for_people(),
                "name": self.config.name,
                "dataset": self.config.data.dataset.name,
                "method": self.config.method.name,
                "balancer": self.config.balancer.name,
                "sampler": self.sampler_name,
                "missing_policy": self.config.model.missing_policy.name,
                "parameters": sum(one.numel() for one in self.method.deployable().parameters()),
            },
        )

    def directions(self) -> Mapping[str, str]:
        """Metric -> ``max`` or ``min``, of the task and of metric plugins."""
        return directions_of(self.method.task, self.make_metrics())


def read_parts(config: RunConfig, builder: Builder) -> tuple[DataSplits, Parts]:
    """The data set, and the run's parts of it.

    Raises:
        DataError: it is missing or breaks its contract.
    """
    splits: DataSplits = builder.component("dataset", "dataset", config.data.dataset)()
    parts = split_parts(
        splits,
        seed=config.seed,
        fraction=config.data.validation.fraction,
        carve_seed=config.data.validation.seed,
        modalities=config.data.modalities,
    )
    return splits, parts


def assemble(config: RunConfig, registry: Registry, *, fit_scalers: bool = True) -> Assembly:
    """Build a run.

    Args:
        config: Checked.
        registry: Of the loaded plugins.
        fit_scalers: Take statistics from the training part; False where weights are loaded afterwards.

    Raises:
        ConfigError: components do not fit each other or the data.
        DataError: the data set is missing or breaks its contract.
    """
    builder = Builder(registry)
    splits, parts = read_parts(config, builder)
    check_encoder_names(config, [modality.name for modality in splits.modalities])
    task = make_task(config, builder, splits.task, parts.classes)
    if fit_scalers and task.needs_targets:
        task.fit(parts.train.targets())
    statistics = scaler_statistics(parts, config.data.batch_size) if fit_scalers else {}
    seed_everything(config.seed, "weights")
    blueprint = make_blueprint(config, builder, parts.modalities, task, statistics, len(parts.train))
    method = make_method(config, builder, blueprint)
    names = tuple(modality.name for modality in parts.modalities)
    sampler_section = config.sampler or method.sampler
    sampler = builder.component("sampler", "sampler", sampler_section)(modalities=names)
    balancer: object = builder.component("balancer", "balancer", config.balancer)()
    if not isinstance(balancer, Balancer):
        offered = builder.used["balancer"]
        raise PluginError(
            f"balancer '{offered.name}' of {offered.origin}: build gives {type(balancer).__name__}, which is no "
            f"robustmm.Balancer; derive the class from it"
        )
    make_metrics = _metric_factory(config, builder, parts.classes, task.directions)
    assembly = Assembly(
        config=config,
        parts=parts,
        method=method,
        balancer=balancer,
        sampler=sampler,
        sampler_name=sampler_section if isinstance(sampler_section, str) else sampler_section.name,
        recipe=_recipe(config, builder, task, directions_of(task, make_metrics())),
        combinations=_combinations(config, names),
        make_metrics=make_metrics,
        make_adapter=adapter_factory(config, builder, method),
        components=dict(builder.used),
    )
    _check_capabilities(builder)
    _check_selection(assembly)
    return assembly


def scaler_statistics(parts: Parts, batch_size: int) -> dict[str, MeanAndVariance]:
    """Mean and variance of each modality that is to be standardised, over the training part alone."""
    wanted = {
        modality.name: Moments(modality.scaling.invalid)
        for modality in parts.modalities
        if modality.scaling.mode == "standardise"
    }
    if not wanted:
        return {}
    loader = PartLoader(parts.train.without_augmentation(), parts.modalities, batch_size=batch_size)
    for batch in loader.ordered(whole=True):
        for column, name in enumerate(batch.modalities):
            if name in wanted:
                wanted[name].update(batch.inputs[name][batch.observed[:, column]])
    return {name: moments.result() for name, moments in wanted.items() if moments.count}


def _better(selected: str, directions: Mapping[str, str]) -> Literal["max", "min"]:
    """Which way a selection score is better; a drop (complete minus mean) is better the other way round."""
    aggregate, _, metric = selected.partition("/")
    less = directions.get(metric, "max") == "min"
    return "min" if less != (aggregate == "drop") else "max"


def _recipe(config: RunConfig, builder: Builder, task: Task, directions: Mapping[str, str]) -> Recipe:
    train = config.train
    make_optimizer = builder.component("optimizer", "optimizer", config.optimizer)
    make_schedule = builder.component("schedule", "schedule", config.schedule)
    metric = train.select.metric if "/" in train.select.metric else f"{train.select.metric}/{task.score}"

    def optimizer(parameters: Iterable[nn.Parameter]) -> Optimizer:
        made: Optimizer = make_optimizer(parameters=parameters)
        return made

    def schedule(epochs: int, steps_per_epoch: int) -> Schedule:
        made: Schedule = make_schedule(epochs=epochs, steps_per_epoch=steps_per_epoch)
        return made

    return Recipe(
        seed=config.seed,
        epochs=train.epochs,
        make_optimizer=optimizer,
        make_schedule=schedule,
        clip_norm=train.clip_norm,
        select_metric=metric,
        select_mode=train.select.mode or _better(metric, directions),
        select_every=train.select.every,
        patience=train.early_stop.patience if train.early_stop else None,
        min_delta=train.early_stop.min_delta if train.early_stop else 0.0,
        log_every=train.log_every,
        checkpoint_every=train.checkpoint_every,
        accumulate=train.accumulate,
    )


def _combinations(config: RunConfig, names: tuple[str, ...]) -> list[Combination]:
    wanted = config.evaluation.combinations
    if wanted == "all":
        if len(names) > MOST_FOR_ALL:
            raise ConfigError(
                [
                    f"evaluation.combinations: all would be {2 ** len(names) - 1:,} combinations of {len(names)} "
                    f"modalities; all is for at most {MOST_FOR_ALL} modalities, name the combinations instead"
                ]
            )
        return all_combinations(names)
    found = [parse_combination(text, names) for text in wanted]
    for text, combination in zip(wanted, found, strict=True):
        if found.count(combination) > 1:
            raise ConfigError([f"evaluation.combinations: {combination_name(combination)} stands twice, as '{text}'"])
    return found


def _metric_factory(
    config: RunConfig, builder: Builder, classes: tuple[str, ...], taken: Iterable[str]
) -> Callable[[], Mapping[str, Metric]]:
    """Makes fresh metrics, each under its component's name, or the option ``label`` where it has one.

    Raises:
        ConfigError: two have one name, or one has the name of the task's own.
    """
    makers: dict[str, Callable[..., Metric]] = {}
    names = set(taken)
    for place, section in enumerate(config.evaluation.metrics):
        label = getattr(section.options, "label", None) or section.name
        if label in names:
            repair = "give it another label" if hasattr(section.options, "label") else "remove it"
            raise ConfigError([f"evaluation.metrics.{place}: there is a metric '{label}' already; {repair}"])
        names.add(label)
        makers[label] = builder.component(f"metric {label}", "metric", section)
    return lambda: {name: make(classes=classes) for name, make in makers.items()}


def adapter_factory(config: RunConfig, builder: Builder, method: Method) -> Callable[[], Adapter] | None:
    """Makes fresh adapters; None where none is chosen.

    Raises:
        ConfigError: the model has nothing that it could adapt, which is better known before training than after.
    """
    section = config.evaluation.adapter
    if section is None:
        return None
    make: Callable[[], Adapter] = builder.component("adapter", "adapter", section)
    if not make().parameters(method):
        raise ConfigError(
            [
                f"evaluation.adapter: '{section.name}' finds no parameter to adapt: fusion "
                f"'{config.model.fusion.name}' in trunk '{config.model.trunk.name}' offers none; {REPAIR}"
            ]
        )
    return make


def _check_capabilities(builder: Builder) -> None:
    """Check `requires` and `conflicts` with everything known.

    What the configuration names was checked when it was read; the data set's task, the default head and encoders and
    the method's own sampler are known only now.
    """
    problems = check_capabilities([(place.split()[0], component) for place, component in builder.used.items()])
    if problems:
        raise ConfigError(problems)


def _check_selection(assembly: Assembly) -> None:
    """Refuse a selection metric that no validation will give, before training rather than after its first epoch."""
    aggregates = [*AGGREGATES, *(combination_name(combo) for combo in assembly.combinations)]
    aggregate, _, metric = assembly.recipe.select_metric.partition("/")
    directions = assembly.directions()
    if aggregate not in aggregates:
        known = ", ".join(aggregates)
        raise ConfigError(
            [f"train.select.metric: no '{aggregate}'{did_you_mean(aggregate, aggregates)} (there are {known})"]
        )
    if metric not in directions:
        raise ConfigError(
            [
                f"train.select.metric: no metric '{metric}'{did_you_mean(metric, directions)} "
                f"(there are {', '.join(sorted(directions))})"
            ]
        )


def device_facts(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"
