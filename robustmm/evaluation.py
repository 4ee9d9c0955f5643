"""The evaluation of a trained run: scores, results, pictures, report. What the command ``evaluate`` calls."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lightning.fabric import Fabric

from robustmm import distributed
from robustmm.build import Assembly, assemble
from robustmm.config.load import load_config
from robustmm.config.schema import RunConfig
from robustmm.engine.adapt import evaluate_adapted
from robustmm.engine.lock import locked
from robustmm.engine.record import no_track
from robustmm.engine.run_folder import RunFolder
from robustmm.engine.scores import summarise
from robustmm.engine.shots import spread_positions, take_shots
from robustmm.engine.trained import load_selected
from robustmm.errors import CheckpointError
from robustmm.launch import launch, one_process, place
from robustmm.masks import combination_name
from robustmm.methods.method import Method
from robustmm.protocols.listing import make_protocols
from robustmm.protocols.predictions import fingerprint, recorded
from robustmm.protocols.protocol import Subject
from robustmm.registry import Registry, Track
from robustmm.report.html import write_report
from robustmm.report.model_card import write_model_card
from robustmm.report.palette import class_colours
from robustmm.report.results import COMBINATIONS, adapted_protocol, protocol_record, read_results, write_protocol
from robustmm.report.sheet import SHEET, write_sheet
from robustmm.report.sheet_plan import plan_of
from robustmm.signature import Signature, read_signature, write_signature


def evaluate(
    folder: RunFolder,
    registry: Registry,
    *,
    fabric: Fabric | None = None,
    accelerator: str | None = None,
    pictures: int | None = None,
    protocols: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    track: Track = no_track,
) -> dict[str, Any]:
    """Measure the selected weights on the test part by every protocol, and with the run's adapter where it has one.

    What is recorded of each sample is kept in ``eval/predictions.npz``: predictions that are there already, made with
    the same weights and data, are not made again, and a pass that was stopped goes on where it was.

    Args:
        folder: Of a trained run.
        registry: Of the loaded plugins.
        fabric: Of the run that has just trained; None launches one process with the run's precision.
        accelerator: Where to launch it; None means the kind of device that the run was trained on.
        pictures: Samples on the picture sheet of dense prediction; None means as many as the configuration says.
        protocols: Names; None means those of the configuration. Results of others stay as they are. The one of all
            combinations is measured too where there are no results of it.
        overrides: Of the run's configuration, such as ``evaluation.missing_rate.seeds=3``.
        track: Shows how far it is.

    Returns:
        The record of all combinations without adapter, as in ``results.json``.

    Raises:
        ConfigError: a protocol does not fit the run.
    """
    with _alone(folder):
        trained = _trained(folder, registry, fabric=fabric, accelerator=accelerator, overrides=overrides)
        evaluation = trained.assembly.config.evaluation
        chosen = evaluation.protocols if protocols is None else tuple(protocols)
        known = _known(trained)
        if COMBINATIONS not in (*chosen, *known):
            chosen = (COMBINATIONS, *chosen)
        measured = _measure(trained, chosen, track)
        if trained.assembly.make_adapter is not None and protocols is None:
            _score_adapted(trained)
        record = measured.get(COMBINATIONS) or known[COMBINATIONS]
        if distributed.rank() == 0:
            if COMBINATIONS in chosen:
                _draw_pictures(trained, record, evaluation.pictures if pictures is None else pictures)
            _warn_of_stale(trained)
        write_report(folder.path)
        write_model_card(folder)
    return record


def evaluate_with_adapter(
    folder: RunFolder, registry: Registry, overrides: Sequence[str], *, accelerator: str | None = None
) -> dict[str, Any]:
    """Score the selected weights with an adapter; results without it stay as they are, and are made if there are none.

    Args:
        folder: Of a trained run.
        registry: Of the loaded plugins.
        overrides: Of the run's configuration, such as ``evaluation.adapter=read``; they must leave an adapter.
        accelerator: See `evaluate`.

    Returns:
        The record that also stands in ``results.json``, as a protocol of its own.

    Raises:
        ConfigError: the adapter is unknown, or does not fit the run.
    """
    with _alone(folder):
        trained = _trained(folder, registry, accelerator=accelerator, overrides=overrides)
        if COMBINATIONS not in _known(trained):
            _measure(trained, (COMBINATIONS,), no_track)
        record = _score_adapted(trained)
    if distributed.rank() == 0:
        write_report(folder.path)
        write_model_card(folder)
    return record


def _alone(folder: RunFolder) -> AbstractContextManager[Any]:
    """Keep other evaluations out of a run, where one process evaluates it."""
    if distributed.is_parallel():
        return nullcontext()
    return locked(folder.config, "another evaluation of this run is at work; wait for it or end it")


def _known(trained: _Trained) -> dict[str, Any]:
    """Results that are there already, of the same weights and data."""
    return {name: record for name, record in _results(trained).items() if not _is_stale(trained, record)}


def _results(trained: _Trained) -> dict[str, Any]:
    path = trained.folder.results
    return read_results(path)["protocols"] if path.is_file() else {}


def _is_stale(trained: _Trained, record: Mapping[str, Any]) -> bool:
    return bool(record.get("fingerprint") != fingerprint(trained.subject))


def _warn_of_stale(trained: _Trained) -> None:
    stale = [name for name, record in _results(trained).items() if _is_stale(trained, record)]
    if stale:
        warnings.warn(
            f"{trained.folder.path}: {', '.join(stale)} in results.json and report.html were measured with other "
            f"weights or other test data; measure them again (`robustmm evaluate`, or `robustmm customise`)",
            stacklevel=2,
        )


@dataclass(frozen=True)
class _Trained:
    """A run with the weights that selection picked, on its device."""

    folder: RunFolder
    registry: Registry
    assembly: Assembly
    method: Method
    fabric: Fabric
    best: Mapping[str, Any]

    @cached_property
    def subject(self) -> Subject:
        """What protocols are given."""
        fabric = self.fabric
        return Subject(self.folder, self.assembly, self.method, self.registry, fabric.device, fabric.autocast)


def _trained(
    folder: RunFolder,
    registry: Registry,
    *,
    fabric: Fabric | None = None,
    accelerator: str | None = None,
    overrides: Sequence[str] = (),
) -> _Trained:
    config = load_config([folder.config], overrides, registry).config
    fabric = fabric or launch(one_process(config.train, accelerator))
    assembly = assemble(config, registry, fit_scalers=False)
    fabric.barrier()  # the first process may still be writing the checkpoint
    best = load_selected(assembly.method, folder)
    _agree_with_signature(folder, assembly)
    return _Trained(folder, registry, assembly, place(assembly.method.deployable(), fabric, config.train), fabric, best)


def _agree_with_signature(folder: RunFolder, assembly: Assembly) -> None:
    """Make sure that the data are those that the model was made for; write down what it is for where nobody has.

    Raises:
        CheckpointError: the data have other classes or modalities now.
    """
    own = assembly.signature()
    if not folder.signature.is_file():  # of a run of an older version
        if distributed.rank() == 0:
            write_signature(folder.signature, own)
        return
    trained = read_signature(folder.signature, repair="delete it, and `robustmm evaluate` writes it anew")
    for what, before, now in (
        ("classes", trained.classes, own.classes),
        ("modalities", _layout(trained), _layout(own)),
    ):
        if before != now:
            raise CheckpointError(
                f"{folder.path} was trained on the {what} {', '.join(before)}, the data set now has {', '.join(now)}; "
                f"bring back the data of the training, or train anew"
            )


def _layout(signature: Signature) -> tuple[str, ...]:
    return tuple(f"{one.name} ({one.kind} {'x'.join(map(str, one.shape))})" for one in signature.modalities)


def _measure(trained: _Trained, names: Sequence[str], track: Track) -> dict[str, dict[str, Any]]:
    """Record what the protocols need, and write down what they make of it; returns their records by name."""
    subject = trained.subject
    protocols = make_protocols(names, subject)
    recording = recorded(subject, [protocol.views() for protocol in protocols], track)
    found = {}
    for protocol in protocols:
        if distributed.rank() == 0 or protocol.name == COMBINATIONS:  # the others are for the file alone
            found[protocol.name] = _write(trained, protocol.name, protocol.result(recording), adapter="none")
    distributed.barrier()
    return found


def _score_adapted(trained: _Trained) -> dict[str, Any]:
    assembly, section = trained.assembly, trained.assembly.config.evaluation.adapter
    assert assembly.make_adapter is not None  # callers have seen to it
    assert section is not None
    evaluation = evaluate_adapted(
        trained.method,
        assembly.test_stream(),
        trained.fabric.device,
        make_adapter=assembly.make_adapter,
        combinations=assembly.combinations,
        extra=assembly.make_metrics,
        autocast=trained.fabric.autocast,
    )
    summary = summarise(evaluation, trained.method.task, assembly.directions())
    own = protocol_record(summary, None, {"adapter_options": section.options.model_dump(mode="json")})
    return _write(trained, adapted_protocol(COMBINATIONS, section.name), own, adapter=section.name)


def _write(trained: _Trained, protocol: str, own: Mapping[str, Any], *, adapter: str) -> dict[str, Any]:
    """A protocol's own results with the facts of the run; the first process writes them down."""
    assembly, task, best = trained.assembly, trained.method.task, trained.best
    config = assembly.config
    row_facts = {**_row_facts(config), "adapter": adapter}
    title = f"{config.name} on test, missing policy {config.model.missing_policy.name}"
    record = {
        "title": title if adapter == "none" else f"{title}, adapter {adapter}",
        **row_facts,
        "fingerprint": fingerprint(trained.subject),
        "modalities": list(trained.method.modalities),
        "combinations": [combination_name(combo) for combo in assembly.combinations],
        "score": task.score,
        "directions": assembly.directions(),
        "chance": task.chance(),
        "chances": task.chances(assembly.directions()),
        "classes": [] if task.continuous else list(task.classes),
        **({"targets": list(task.classes)} if task.continuous else {}),
        **({"colours": _colours(assembly)} if task.dense else {}),
        "selection": {
            "part": "validation",
            "metric": best["metric"],
            "value": best["score"],
            "epoch": best["epoch"],
        },
        "data": assembly.parts.facts,
        **own,
    }
    if distributed.rank() == 0:
        write_protocol(trained.folder.path, protocol, record, row_facts=row_facts)
    return record


def _colours(assembly: Assembly) -> list[list[int]]:
    """Red, green and blue of each class, as in pictures."""
    colours: list[list[int]] = class_colours(assembly.parts.classes, assembly.parts.colours).tolist()
    return colours


def _draw_pictures(trained: _Trained, record: Mapping[str, Any], count: int) -> None:
    """Write the picture sheet of a dense run; with a count of 0 take away an earlier one."""
    assembly = trained.assembly
    path, part = trained.folder.path / SHEET, assembly.parts.test
    if not trained.method.task.dense or not count:
        path.unlink(missing_ok=True)
        return
    plan = plan_of(record, assembly.parts.modalities, total=len(part))
    positions = spread_positions(len(part), count)
    shots = take_shots(
        trained.method,
        part,
        assembly.parts.modalities,
        trained.fabric.device,
        positions=positions,
        combinations=plan.combinations,
        autocast=trained.fabric.autocast,
    )
    write_sheet(path, plan, shots, len(positions))


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
