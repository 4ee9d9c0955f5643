"""CPM-Nets on six views of handwritten digits of which a share is missing: accuracy by missing rate.

    python tools/bench_cpm_nets.py                             # all variants, minutes per variant and rate on a core
    python tools/bench_cpm_nets.py --variants released --rates 0.5 --splits 2

Protocol: missing rate eta = absent views / (samples x views), the same in training and test; every sample keeps one
view drawn at random, further views stay independently at the rate that gives eta, redrawn until it is met within 0.005.
Masks come from a generator seeded by split and rate; the share that they leave out and a checksum are printed. Split
80/20 by class, splits 0 to 4. Each view is shifted by its mean and divided by its range, one number each, over what
training observes. 300 full batches: 30 rounds of 5 steps of the decoders and 5 of the codes, Adam at 0.01; the last
weights are tested, nothing is selected.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from robustmm import ArrayDataset, Component, DataSplits, Modality, Options, Scaling, generator_for
from robustmm.build import assemble
from robustmm.config.load import config_from_mapping
from robustmm.engine.evaluate import evaluate_combinations
from robustmm.engine.interrupt import Interrupt
from robustmm.launch import launch, place
from robustmm.plugin_manager import get_plugins
from robustmm.registry import Registry
from robustmm.run import make_trainer

NAME = "handwritten_incomplete"
STEPS = 300
SAMPLES = 1600
EVERY_VIEW = "pixel+fourier+profile+zernike+karhunen+morphological"
RELEASED = {"margin": "predicted", "reduction": "sum", "output_dropout": 0.1}
#: Variants of the method's options.
VARIANTS: dict[str, dict[str, Any]] = {
    "released": RELEASED,
    "released, weight 10": {**RELEASED, "classification_weight": 10.0},
    "released without dropout": {**RELEASED, "output_dropout": 0.0},
    "released, 1000 search steps": {**RELEASED, "search_steps": 1000},
    "default": {},
    "default, retuned": {"retune_epochs": 50},
    "default, relu": {"activation": "relu"},
}


def draw_missing(samples: int, views: int, rate: float, generator: torch.Generator) -> Tensor:
    """What is observed, (samples, views) bool, with ``rate`` of it missing and at least one view each.

    Source:
        The generator of CPM-Nets' released code, ``util/get_sn.py``, with a seed.
    """
    if rate == 0:
        return torch.ones(samples, views, dtype=torch.bool)
    kept = torch.randint(views, (samples, 1), generator=generator)
    one = torch.zeros(samples, views, dtype=torch.bool).scatter_(1, kept, True)
    if 1 - rate <= 1 / views:
        return one
    share = (views * (1 - rate) - 1) / (views - 1)  # of the other views
    while True:
        observed = one | (torch.rand(samples, views, generator=generator) < share)
        if abs(1 - float(observed.float().mean()) - rate) < 0.005:
            return observed


class IncompleteOptions(Options):
    """Options of the digits with missing views."""

    split: int = Field(0, description="seed of the split and of the masks")
    rate: float = Field(0.0, description="share of views that is missing")


def incomplete_digits(split: int, rate: float) -> DataSplits:
    """The six views with masks applied; what the masks are stands in the notes."""
    complete = get_plugins().registry.get("dataset", "handwritten_6views").build(split_seed=split)
    views = complete.train.inputs
    generator = generator_for("missing", split, round(1000 * rate))
    observed = [draw_missing(len(part), len(views), rate, generator) for part in (complete.train, complete.test)]
    scales = {}
    for column, (name, x) in enumerate(views.items()):
        seen = x[observed[0][:, column]]
        scales[name] = seen.mean(), seen.max() - seen.min()
    parts = [
        ArrayDataset(
            {name: (x - scales[name][0]) / scales[name][1] for name, x in part.inputs.items()},
            part.target,
            part.ids,
            observed=mask,
        )
        for part, mask in zip((complete.train, complete.test), observed, strict=True)
    ]
    modalities = tuple(Modality(name, "vector", tuple(x.shape[1:]), Scaling("none")) for name, x in views.items())
    # Whole training part for training: the validation part repeats some of it, and picks from one epoch alone.
    few = ArrayDataset(
        {name: x[:50] for name, x in parts[0].inputs.items()},
        parts[0].target[:50],
        parts[0].ids[:50],
        observed=observed[0][:50],
    )
    both = torch.cat(observed)
    checksum = hashlib.sha256(both.numpy().tobytes()).hexdigest()[:8]
    notes = {"masks": f"{1 - float(both.float().mean()):.3f} missing, masks {checksum}"}
    return DataSplits(modalities, "classification", complete.classes, *parts, few, notes=notes)


def accuracy(registry: Registry, split: int, rate: float, options: Mapping[str, Any]) -> tuple[float, str]:
    """Percent right on the test part, each sample by the views that it has, and the facts of the masks."""
    config = config_from_mapping(
        {
            "name": NAME,
            "seed": split,
            "data": {"dataset": {"name": NAME, "split": split, "rate": rate}, "batch_size": SAMPLES},
            "method": {"name": "cpm_nets", **options},
            "optimizer": {"name": "adam", "lr": 0.01},
            "schedule": "constant",
            "train": {
                "epochs": STEPS,
                "select": {"every": STEPS},
                "checkpoint_every": STEPS,
                "accelerator": "cpu",
                "threads": 1,
            },
            "evaluation": {"combinations": [EVERY_VIEW]},  # of which a test sample shows what it has
            "callbacks": [],
        },
        registry,
    )
    with tempfile.TemporaryDirectory() as folder:
        assembly = assemble(config, registry)
        fabric = launch(config.train)
        place(assembly.method, fabric, config.train)
        make_trainer(assembly, fabric, Path(folder), (), Interrupt()).fit()
    found = evaluate_combinations(
        assembly.method, assembly.loader("test").ordered(), fabric.device, combinations=assembly.combinations
    )
    (tally,) = found.combinations.values()
    return 100 * float(tally.compute()["accuracy"] or 0.0), str(assembly.parts.facts["masks"])


def main() -> None:
    """Print a row per variant and rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--rates", nargs="+", type=float, default=[0.0, 0.3, 0.5])
    parser.add_argument("--splits", type=int, default=5)
    arguments = parser.parse_args()
    registry = get_plugins().registry
    registry.add(
        "dataset", Component(NAME, incomplete_digits, IncompleteOptions, "Digits with missing views.", "standard")
    )
    print("| variant | missing rate | accuracy | CPU seconds of a run |")
    print("|---|---|---|---|")
    for name in arguments.variants:
        for rate in arguments.rates:
            started = time.process_time()
            found = [accuracy(registry, split, rate, VARIANTS[name]) for split in range(arguments.splits)]
            values = [value for value, _ in found]
            deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            seconds = (time.process_time() - started) / len(values)
            print(f"| {name} | {rate} | {statistics.mean(values):.2f}{deviation} | {seconds:.0f} |", flush=True)
            print(f"<!-- {', '.join(f'{value:.2f} ({facts})' for value, facts in found)} -->", flush=True)


if __name__ == "__main__":
    main()
