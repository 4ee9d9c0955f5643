"""Does an adapter help? Scores of trained runs without and with it, on clean test data and with noise on one modality.

python tools/measure_adapter.py runs/read_handwritten/* --noise profile=4 --adapter-option lr=1e-3 --complete

Noise is normal, so many times the deviation of each input value over the test part, drawn from the run's seed. Both
evaluations see the same batches in the same order. Printed is the main score in percent, mean and standard deviation
over the runs; the last column is the mean change, with its deviation over the runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import torch

from robustmm import Batch
from robustmm.build import Assembly, assemble
from robustmm.config.load import load_config
from robustmm.engine.adapt import evaluate_adapted
from robustmm.engine.evaluate import Evaluation, evaluate_combinations
from robustmm.engine.run_folder import RunFolder
from robustmm.engine.scores import summarise
from robustmm.engine.trained import load_selected
from robustmm.plugin_manager import get_plugins
from robustmm.seeding import generator_for

CPU = torch.device("cpu")
#: Setting, row -> a score without and with the adapter, for each run.
Scores = dict[tuple[str, str], list[tuple[float, float]]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--adapter", default="read", metavar="NAME")
    parser.add_argument("--adapter-option", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--noise", action="append", default=[], metavar="MODALITY=DEVIATIONS")
    parser.add_argument("--complete", action="store_true", help="the complete combination alone, which is quick")
    given = parser.parse_args()
    chosen = [f"evaluation.adapter={given.adapter}", *(f"evaluation.adapter.{text}" for text in given.adapter_option)]
    scores: Scores = {}
    for folder in given.folders:
        measure(folder, chosen, given.noise, scores, complete=given.complete)
    print("| test data | combination | without | with | change |\n|---|---|---|---|---|")
    for (setting, row), pairs in scores.items():
        before, after = zip(*pairs, strict=True)
        change = [new - old for old, new in pairs]
        print(f"| {setting} | {row} | {spread(before)} | {spread(after)} | {spread(change, '+')} |")


def measure(folder: Path, overrides: Sequence[str], noises: Sequence[str], scores: Scores, *, complete: bool) -> None:
    """Add one run's scores."""
    run = RunFolder(folder)
    run.require()
    registry = get_plugins().registry
    assembly = assemble(load_config([run.config], overrides, registry).config, registry, fit_scalers=False)
    load_selected(assembly.method, run)
    assert assembly.make_adapter is not None
    method = assembly.method.deployable()
    chosen = [method.modalities] if complete else assembly.combinations
    clean = list(assembly.test_stream())
    for setting in ("clean", *noises):
        batches = clean if setting == "clean" else noisy(clean, *setting.split("="), seed=assembly.config.seed)
        before = rows_of(assembly, evaluate_combinations(method, batches, CPU, combinations=chosen))
        adapted = evaluate_adapted(method, batches, CPU, make_adapter=assembly.make_adapter, combinations=chosen)
        after = rows_of(assembly, adapted)
        for row, old in before.items():
            scores.setdefault((setting, row), []).append((100 * old, 100 * after[row]))


def noisy(batches: Sequence[Batch], name: str, deviations: str, *, seed: int) -> list[Batch]:
    """The batches with normal noise on one modality."""
    generator = generator_for(seed, "noise", name)
    size = float(deviations) * torch.cat([batch.inputs[name] for batch in batches]).std(dim=0)
    changed = []
    for batch in batches:
        x = batch.inputs[name]
        inputs = {**batch.inputs, name: x + size * torch.randn(x.shape, generator=generator)}
        changed.append(replace(batch, inputs=inputs))
    return changed


def rows_of(assembly: Assembly, evaluation: Evaluation) -> dict[str, float]:
    """The main score of the complete combination and of the mean over all."""
    task = assembly.method.task
    aggregates = summarise(evaluation, task, assembly.directions()).aggregates
    names = ("complete", "mean") if len(evaluation.combinations) > 1 else ("complete",)
    return {name: aggregates[name][task.score] or 0.0 for name in names}


def spread(values: Sequence[float], sign: str = "") -> str:
    """Mean and standard deviation."""
    deviation = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{mean(values):{sign}.2f}{deviation}"


if __name__ == "__main__":
    main()
