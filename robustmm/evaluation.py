"""The evaluation of a trained run: scores, results, pictures, report. What the command ``evaluate`` calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.fabric import Fabric

from robustmm import distributed
from robustmm.build import Assembly, assemble
from robustmm.config.load import load_config
from robustmm.config.schema import RunConfig
from robustmm.engine import checkpoint
from robustmm.engine.evaluate import evaluate_combinations
from robustmm.engine.run_folder import RunFolder
from robustmm.engine.scores import summarise
from robustmm.engine.shots import spread_positions, take_shots
from robustmm.errors import CheckpointError
from robustmm.launch import launch, one_process, place
from robustmm.masks import combination_name
from robustmm.methods.method import Method
from robustmm.registry import Registry
from robustmm.report.html import write_report
from robustmm.report.palette import class_colours
from robustmm.report.results import protocol_record, write_protocol
from robustmm.report.sheet import SHEET, write_sheet
from robustmm.report.sheet_plan import plan_of


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
    fabric = fabric or launch(one_process(config.train, accelerator))
    assembly = assemble(config, registry, fit_scalers=False)
    fabric.barrier()  # the first process may still be writing the checkpoint
    best = load_best(assembly, folder)
    method = place(assembly.method.deployable(), fabric, config.train)
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
