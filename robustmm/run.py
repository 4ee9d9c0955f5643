"""A whole run: folder, device, training, evaluation, results. What the command ``train`` calls."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from lightning.fabric import Fabric

from robustmm import distributed
from robustmm.build import Assembly, assemble, device_facts
from robustmm.builder import Builder
from robustmm.config.load import LoadedConfig
from robustmm.config.render import to_yaml
from robustmm.config.schema import RunConfig
from robustmm.engine import checkpoint
from robustmm.engine.adapt import evaluate_adapted
from robustmm.engine.callbacks import Callback, RunInfo
from robustmm.engine.fit import DryFit, Fit
from robustmm.engine.interrupt import Interrupt
from robustmm.engine.run_folder import RunFolder, new_folder, unfinished_folder
from robustmm.engine.train import Trainer
from robustmm.errors import CheckpointError
from robustmm.evaluation import evaluate
from robustmm.launch import launch, one_process, place
from robustmm.protocols.listing import make_protocols
from robustmm.protocols.predictions import rehearse
from robustmm.protocols.protocol import Protocol, Subject
from robustmm.registry import Registry
from robustmm.signature import write_signature


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


def _protocols(assembly: Assembly, registry: Registry, fabric: Fabric, folder: RunFolder) -> list[Protocol]:
    """What will be measured after training."""
    subject = Subject(folder, assembly, assembly.method, registry, fabric.device, fabric.autocast)
    return make_protocols(assembly.config.evaluation.protocols, subject)


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
    if distributed.rank() == 0:
        write_signature(folder.signature, assembly.signature())
    place(assembly.method, fabric, config.train)
    rehearse(_protocols(assembly, registry, fabric, folder))
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


def dry_run(config: RunConfig, registry: Registry) -> str:
    """Does this configuration work? Build everything, train on one batch, evaluate another, write nothing.

    A method's teacher is built but not trained.

    Returns:
        What was tried, in words.
    """
    fabric = launch(one_process(config.train))
    assembly = assemble(config, registry)
    place(assembly.method, fabric, config.train)
    trainer = make_trainer(assembly, fabric, Path(os.devnull), (), Interrupt())
    assembly.method.on_fit_start(DryFit(trainer))
    trainer.dry_step()
    method, chosen = assembly.method, assembly.combinations
    batch = next(assembly.loader("test").ordered())
    rehearse(_protocols(assembly, registry, fabric, RunFolder(Path(os.devnull))), batch)
    if assembly.make_adapter is not None:
        batches = islice(assembly.test_stream(), 1)
        evaluate_adapted(method, batches, fabric.device, make_adapter=assembly.make_adapter, combinations=chosen)
    facts = assembly.parts.facts
    sizes = ", ".join(f"{facts[f'{part}_samples']} {part}" for part in ("train", "validation", "test"))
    count = len(chosen)
    return f"{config.name}: a training step and an evaluation batch over {count} combinations work ({sizes} samples)"
