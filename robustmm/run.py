"""A whole run: folder, device, training, evaluation, results. What the commands ``train`` and ``evaluate`` call."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException

from robustmm import distributed
from robustmm.build import Assembly, Builder, assemble, device_facts
from robustmm.config.load import LoadedConfig, load_config
from robustmm.config.render import to_yaml
from robustmm.config.schema import RunConfig, TrainSection
from robustmm.engine import checkpoint
from robustmm.engine.callbacks import Callback, RunInfo
from robustmm.engine.evaluate import evaluate_combinations
from robustmm.engine.fit import Fit
from robustmm.engine.interrupt import Interrupt
from robustmm.engine.run_folder import RunFolder, new_folder, unfinished_folder
from robustmm.engine.scores import summarise
from robustmm.engine.shots import spread_positions, take_shots
from robustmm.engine.train import Trainer
from robustmm.errors import CheckpointError, ConfigError
from robustmm.masks import combination_name
from robustmm.methods.method import Method
from robustmm.registry import Registry
from robustmm.report.html import write_report
from robustmm.report.palette import class_colours
from robustmm.report.results import protocol_record, write_protocol
from robustmm.report.sheet import SHEET, write_sheet
from robustmm.report.sheet_plan import plan_of


@dataclass(frozen=True)
class RunRequest:
    """What the user asked for.

    Args:
        loaded: The checked configuration with its sources.
        root: Where run folders go.
        folder: A folder that the user named; None makes one.
        resume: Continue an unfinished run.
        overwrite: Replace a folder that is not empty.
    """

    loaded: LoadedConfig
    root: Path = Path("runs")
    folder: Path | None = None
    resume: bool = False
    overwrite: bool = False


def train(request: RunRequest, registry: Registry) -> RunFolder:
    """Train, select on validation, evaluate the test part once, write everything down.

    Returns:
        The run's folder, marked DONE.

    Raises:
        RobustmmError: configuration, data or the run itself; the folder is marked FAILED once training has begun.
        KeyboardInterrupt: asked to stop; a checkpoint was written.
    """
    config = request.loaded.config
    fabric = launch(config.train)
    folder = _folder(request)
    if request.resume:
        _refuse_other_config(folder, config)
        if folder.done:
            return folder
    distributed.barrier()  # the first process is about to write what the others have just read
    if distributed.rank() == 0:
        folder.begin(to_yaml(config), request.loaded.sources)
    try:
        _train_in(folder, config, registry, fabric, resume=request.resume)
        evaluate(folder, registry, fabric=fabric)
    except KeyboardInterrupt:
        raise
    except Exception as error:  # whatever it was, the folder says that the run failed, and the error goes on
        if distributed.rank() == 0:
            folder.fail(error)
        raise
    if distributed.rank() == 0:
        folder.finish()
    return folder


def launch(section: TrainSection) -> Fabric:
    """Start the processes and choose device and precision.

    Raises:
        ConfigError: more processes on the CPU than it has cores, or a device, strategy or precision that is not there.
    """
    cores = os.cpu_count() or 1
    on_cpu = section.accelerator == "cpu" or (section.accelerator == "auto" and not torch.accelerator.is_available())
    if on_cpu and isinstance(section.devices, int) and section.devices > cores:
        raise ConfigError(
            [f"train.devices: {section.devices} processes on a CPU with {cores} cores; give at most {cores}, usually 1"]
        )
    if section.threads is not None:
        torch.set_num_threads(section.threads)
    if section.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
    try:
        fabric = Fabric(
            accelerator=section.accelerator,
            devices=list(section.devices) if isinstance(section.devices, tuple) else section.devices,
            num_nodes=section.nodes,
            strategy=section.strategy,
            precision="32-true" if section.precision == "32" else section.precision,
        )
        fabric.launch()
    except (TypeError, ValueError, RuntimeError, MisconfigurationException) as error:  # Fabric's ways to say no
        asked = f"accelerator {section.accelerator}, devices {section.devices}, strategy {section.strategy}"
        raise ConfigError([f"train: {asked}, precision {section.precision} does not work here: {error}"]) from error
    return fabric


def _folder(request: RunRequest) -> RunFolder:
    """The run's folder; a new one is chosen by the first process, whose refusal ends all of them."""
    config = request.loaded.config
    name = config.name or "run"
    if request.resume:
        return unfinished_folder(request.root, name, config.seed, given=request.folder)
    chosen: RunFolder | CheckpointError | None = None
    if distributed.rank() == 0:
        try:
            chosen = new_folder(request.root, name, config.seed, given=request.folder, overwrite=request.overwrite)
        except CheckpointError as error:
            chosen = error
    first = distributed.gather_objects(chosen)[0]
    if isinstance(first, CheckpointError):
        raise first
    assert first is not None  # the first process has chosen
    return first


def _refuse_other_config(folder: RunFolder, config: RunConfig) -> None:
    """A run is resumed with the configuration that it began with, value for value."""
    before = dict(_flat(yaml.safe_load(folder.config.read_text(encoding="utf-8"))))
    now = dict(_flat(yaml.safe_load(to_yaml(config))))
    changed = [
        f"  {key}: began with {before.get(key, 'nothing')}, given {now.get(key, 'nothing')}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise CheckpointError(
            f"{folder.path} began with another configuration; start a new run, or give the same one:\n"
            + "\n".join(changed)
        )


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of nested mappings."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _train_in(folder: RunFolder, config: RunConfig, registry: Registry, fabric: Fabric, *, resume: bool) -> None:
    assembly = assemble(config, registry)
    assembly.method.to(fabric.device)
    callbacks = [Builder(registry).component("callback", "callback", section)() for section in config.callbacks]
    with Interrupt() as interrupt:
        trainer = make_trainer(assembly, fabric, folder.checkpoints, callbacks, interrupt)
        resuming = resume and trainer.last.is_file()
        info = _run_info(folder, assembly, trainer, checkpoint.load(trainer.last) if resuming else {})
        with _told(callbacks, info):
            assembly.method.on_fit_start(Fit(trainer))
            if resuming:
                trainer.load()
            trainer.fit()


def make_trainer(
    assembly: Assembly, fabric: Fabric, folder: Path, callbacks: Sequence[Callback], interrupt: Interrupt
) -> Trainer:
    """The trainer of an assembled run whose method is on the device."""
    pin = fabric.device.type == "cuda"
    return Trainer(
        method=assembly.method,
        balancer=assembly.balancer,
        sampler=assembly.sampler,
        train=assembly.loader("train", pin_memory=pin),
        validation=assembly.loader("validation", pin_memory=pin),
        recipe=assembly.recipe,
        fabric=fabric,
        folder=folder,
        callbacks=callbacks,
        extra=assembly.make_metrics,
        combinations=assembly.combinations,
        interrupt=interrupt,
    )


def _run_info(folder: RunFolder, assembly: Assembly, trainer: Trainer, state: Mapping[str, Any]) -> RunInfo:
    """What callbacks are told; ``state`` is the checkpoint to go on from, empty for a fresh start."""
    config, clock = assembly.config, trainer.context.clock
    names = [modality.name for modality in assembly.parts.modalities]
    facts = assembly.parts.facts
    parameters = sum(parameter.numel() for parameter in assembly.method.parameters())
    return RunInfo(
        folder=folder.path,
        name=config.name or "run",
        epochs=clock.epochs,
        steps_per_epoch=clock.steps_per_epoch,
        start_epoch=state.get("epoch", 0),
        start_step=state.get("step", 0),
        facts={
            "run": str(folder.path),
            "data": f"{config.data.dataset.name}: {facts['train_samples']} train, {facts['validation_samples']} "
            f"validation ({facts['validation']}), {facts['test_samples']} test",
            "modalities": f"{', '.join(names)} ({len(assembly.combinations)} combinations)",
            "method": f"{config.method.name}, balancer {config.balancer.name}, sampler {assembly.sampler_name}",
            "model": f"{parameters:,} parameters, fusion {config.model.fusion.name}, "
            f"missing policy {config.model.missing_policy.name}",
            "device": f"{device_facts(trainer.fabric.device)}, precision {_precision(trainer)}",
        },
    )


def _precision(trainer: Trainer) -> str:
    """The precision in use; on a CPU Fabric takes bf16-mixed where 16-mixed was asked for."""
    return trainer.fabric.strategy.precision.precision.removesuffix("-true")


@contextmanager
def _told(callbacks: Sequence[Callback], info: RunInfo) -> Iterator[None]:
    """Tell callbacks of the start and, whatever happens, of the end."""
    told = list(callbacks) if distributed.rank() == 0 else []
    status = "failed"
    try:
        for callback in told:
            callback.on_run_start(info)
        yield
        status = "done"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        for callback in told:
            callback.on_run_end(status)


def evaluate(
    folder: RunFolder,
    registry: Registry,
    *,
    fabric: Fabric | None = None,
    accelerator: str | None = None,
    pictures: int | None = None,
) -> dict[str, Any]:
    """Score the selected weights on every combination of the test part.

    Args:
        folder: Of a trained run.
        registry: Of the loaded plugins.
        fabric: Of the run that has just trained; None launches one process with the run's precision.
        accelerator: Where to launch it; None means the kind of device that the run was trained on.
        pictures: Samples on the picture sheet of dense prediction; None means as many as the configuration says.

    Returns:
        The record that also stands in ``results.json``.
    """
    config = load_config([folder.config], [], registry).config
    fabric = fabric or launch(_one_process(config.train, accelerator))
    assembly = assemble(config, registry, fit_scalers=False)
    fabric.barrier()  # the first process may still be writing the checkpoint
    best = load_best(assembly, folder)
    method = assembly.method.deployable().to(fabric.device)
    evaluation = evaluate_combinations(
        method,
        assembly.loader("test").ordered(),
        fabric.device,
        combinations=assembly.combinations,
        extra=assembly.make_metrics,
        unimodal=config.evaluation.unimodal,
        autocast=fabric.autocast,
    )
    summary = summarise(evaluation, method.task, assembly.directions())
    row_facts = _row_facts(config)
    record = protocol_record(
        summary,
        evaluation.unimodal_source,
        {
            "title": f"{config.name} on test, missing policy {config.model.missing_policy.name}",
            **row_facts,
            "combinations": [combination_name(combo) for combo in assembly.combinations],
            "score": method.task.score,
            "directions": assembly.directions(),
            "chance": method.task.chance(),
            "classes": list(assembly.parts.classes),
            **({"colours": _colours(assembly)} if method.task.dense else {}),
            "selection": {
                "part": "validation",
                "metric": best["metric"],
                "value": best["score"],
                "epoch": best["epoch"],
            },
            "data": assembly.parts.facts,
        },
    )
    if distributed.rank() == 0:
        write_protocol(folder.path, "combinations", record, row_facts=row_facts)
        count = config.evaluation.pictures if pictures is None else pictures
        _draw_pictures(folder, assembly, method, fabric, record, count)
        write_report(folder.path)
    return record


def _colours(assembly: Assembly) -> list[list[int]]:
    """Red, green and blue of each class, as in pictures."""
    colours: list[list[int]] = class_colours(assembly.parts.classes, assembly.parts.colours).tolist()
    return colours


def _draw_pictures(
    folder: RunFolder, assembly: Assembly, method: Method, fabric: Fabric, record: Mapping[str, Any], count: int
) -> None:
    """Write the picture sheet of a dense run; with a count of 0 take away an earlier one."""
    path, part = folder.path / SHEET, assembly.parts.test
    if not method.task.dense or not count:
        path.unlink(missing_ok=True)
        return
    plan = plan_of(record, assembly.parts.modalities, total=len(part))
    positions = spread_positions(len(part), count)
    shots = take_shots(
        method,
        part,
        assembly.parts.modalities,
        fabric.device,
        positions=positions,
        combinations=plan.combinations,
        autocast=fabric.autocast,
    )
    write_sheet(path, plan, shots, len(positions))


def _one_process(section: TrainSection, accelerator: str | None = None) -> TrainSection:
    """The same device and precision for a single process."""
    alone = {"devices": 1, "nodes": 1, "strategy": "auto", "accelerator": accelerator or section.accelerator}
    return section.model_copy(update=alone)


def _row_facts(config: RunConfig) -> dict[str, Any]:
    return {
        "run": config.name,
        "dataset": config.data.dataset.name,
        "split": "test",
        "method": config.method.name,
        "balancer": config.balancer.name,
        "missing_policy": config.model.missing_policy.name,
        "seed": config.seed,
    }


def load_best(assembly: Assembly, folder: RunFolder) -> dict[str, Any]:
    """Give the assembly's method the weights that selection picked; return the checkpoint's facts.

    Raises:
        CheckpointError: there is none, or it does not fit.
    """
    path = folder.checkpoints / "best.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{folder.path} has no {path.relative_to(folder.path)}; has the run been trained?")
    state = checkpoint.load(path)
    checkpoint.load_weights(assembly.method, state["weights"], place=str(path))
    assembly.method.load_method_state(state["method_state"])
    return {key: state[key] for key in ("metric", "score", "epoch")}


def dry_run(config: RunConfig, registry: Registry) -> str:
    """Does this configuration work? Build everything, train on one batch, evaluate another, write nothing.

    A method's teacher is built but not trained.

    Returns:
        What was tried, in words.
    """
    fabric = launch(_one_process(config.train))
    assembly = assemble(config, registry)
    assembly.method.to(fabric.device)
    trainer = make_trainer(assembly, fabric, Path(os.devnull), (), Interrupt())
    trainer.dry_step()
    batches = islice(assembly.loader("test").ordered(), 1)
    evaluate_combinations(assembly.method, batches, fabric.device, combinations=assembly.combinations)
    facts = assembly.parts.facts
    sizes = ", ".join(f"{facts[f'{part}_samples']} {part}" for part in ("train", "validation", "test"))
    count = len(assembly.combinations)
    return f"{config.name}: a training step and an evaluation batch over {count} combinations work ({sizes} samples)"
