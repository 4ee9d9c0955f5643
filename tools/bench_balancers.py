"""What each balancing strategy costs: its step, and what it does before an epoch, relative to no balancing.

    python tools/bench_balancers.py                       # every registered balancer, about five minutes on one core
    python tools/bench_balancers.py --balancers agm pmr --modalities 3

A step with the strategy and one without run in turn within one process, and the median of the ratios of neighbouring
pairs is printed. On a CPU times are those of the processor, which other work on the machine changes least. What happens
before an epoch is timed once after a warm-up and printed in steps without balancing; how often it happens is the
strategy's own matter (every epoch, or every super-epoch). Absolute times are printed on a GPU alone.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from bench_step import CLASSES, Setting, UniformSampler, make_batch, make_method, modalities_of
from lightning.fabric import Fabric

from robustmm import ArrayDataset, Balancer, Batch, Component, generator_for
from robustmm.data.loaders import PartLoader
from robustmm.data.parts import Part
from robustmm.engine.optim import Schedule
from robustmm.engine.recipe import Recipe
from robustmm.engine.step import train_step
from robustmm.engine.train import Trainer
from robustmm.masks import draw_uniform
from robustmm.plugin_manager import get_plugins
from robustmm.seeding import seed_torch

#: An epoch in the middle of training, in which every strategy is past its warm-up, and the last one whose beginning is
#: timed: some act before the 21st for the first time.
EPOCHS, EPOCH, LAST_EPOCH = 60, 20, 21
STEPS_PER_EPOCH = 8
HEADS = "unimodal_heads"


def make(component: Component) -> Balancer:
    """The strategy with the options with which it is tested, which are its defaults where it has them all."""
    options = component.options.model_validate(component.options.contract_example() or {})
    balancer: Balancer = component.build(**{name: getattr(options, name) for name in type(options).model_fields})
    return balancer


def loader_of(setting: Setting) -> PartLoader:
    """Eight batches of the kind of `make_batch`."""
    whole = make_batch(replace(setting, batch_size=setting.batch_size * STEPS_PER_EPOCH, device=torch.device("cpu")))
    data = ArrayDataset(dict(whole.inputs), whole.target, list(whole.ids))
    return PartLoader(Part(data, range(len(data))), modalities_of(setting), batch_size=setting.batch_size)


def trainer_for(setting: Setting, component: Component | None, folder: Path) -> Trainer:
    """A trainer in the middle of its run."""
    method = make_method(setting)
    if component is not None and HEADS in component.requires:
        heads = {name: linear_head(width) for name, width in method.trunk.feature_channels.items()}
        method.unimodal_heads = torch.nn.ModuleDict(heads).to(setting.device)
    loader = loader_of(setting)
    recipe = Recipe(
        seed=0,
        epochs=EPOCHS,
        make_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e-3, momentum=0.9),
        make_schedule=Schedule,
    )
    return Trainer(
        method=method.train(),
        balancer=Balancer() if component is None else make(component),
        sampler=UniformSampler(),
        train=loader,
        validation=loader,
        recipe=recipe,
        fabric=Fabric(accelerator=setting.device.type, devices=1),
        folder=folder,
    )


def linear_head(channels: tuple[int, ...]) -> torch.nn.Module:
    """A linear head on vectors of the last width."""
    head = get_plugins().registry.get("head", "linear")
    made: torch.nn.Module = head.build(channels=channels, num_outputs=CLASSES)
    return made


def synchronised(device: torch.device, run: Callable[[], object]) -> float:
    """Seconds of a call, with the device's work; on a CPU those of this process, whatever else the machine does."""
    on_gpu = device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    if on_gpu:
        torch.cuda.synchronize(device)
    started = clock()
    run()
    if on_gpu:
        torch.cuda.synchronize(device)
    return clock() - started


def step_of(trainer: Trainer, batch: Batch) -> Callable[[], object]:
    """A step as the loop makes it, on one batch."""
    observed = batch.observed

    def step() -> None:
        clock = trainer.context.clock
        seed_torch(0, clock.step, 0)
        presence = draw_uniform(observed, generator_for(0, "masks", clock.step, 0))
        train_step(trainer.context, [batch], presence)
        trainer.context.clock = replace(clock, step=clock.step + 1)

    return step


def before_epochs(trainer: Trainer) -> list[float]:
    """Seconds before each of the epochs up to the last one."""
    seconds = []
    for epoch in range(LAST_EPOCH + 1):
        trainer.context.clock = replace(trainer.context.clock, epoch=epoch, step=epoch * STEPS_PER_EPOCH)
        view = trainer._epoch_view()
        seconds.append(synchronised(trainer.fabric.device, lambda view=view: trainer.balancer.on_epoch_start(view)))
    return seconds


def in_turn(
    plain: Callable[[], object], ours: Callable[[], object], repeats: int, device: torch.device
) -> list[tuple[float, float]]:
    """Seconds of both, pair by pair, after a warm-up; who comes first changes, since the second finds warm caches."""
    for _ in range(3):
        plain()
        ours()
    pairs = []
    for number in range(repeats):
        order = (plain, ours) if number % 2 == 0 else (ours, plain)
        seconds = {step: synchronised(device, step) for step in order}
        pairs.append((seconds[plain], seconds[ours]))
    return pairs


def compare(setting: Setting, component: Component, repeats: int) -> None:
    """Print one row."""
    with tempfile.TemporaryDirectory() as folder:
        plain, ours = (trainer_for(setting, one, Path(folder)) for one in (None, component))
        batch = make_batch(setting)
        epochs = before_epochs(ours)
        middle = replace(ours.context.clock, epoch=EPOCH, step=EPOCH * STEPS_PER_EPOCH)
        plain.context.clock = ours.context.clock = middle
        pairs = in_turn(step_of(plain, batch), step_of(ours, batch), repeats, setting.device)
    ratios = [own / base for base, own in pairs]
    base = statistics.median(base for base, _ in pairs)
    low, _, high = statistics.quantiles(ratios, n=4)
    active = [seconds / base for seconds in epochs if seconds > base]
    rare = f"{statistics.median(active):.1f} ({len(active)} of {len(epochs)})" if active else "less than one"
    absolute = f" {base * 1e3:.2f} ms |" if setting.device.type == "cuda" else ""
    print(
        f"| {component.name} | {statistics.median(ratios):.2f} | {low:.2f} to {high:.2f} | {rare} |{absolute}",
        flush=True,
    )


def main() -> None:
    """A row per balancer."""
    registry = get_plugins().registry
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--balancers", nargs="+", choices=registry.names("balancer"), default=registry.names("balancer")
    )
    parser.add_argument("--modalities", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    given = parser.parse_args()
    setting = Setting(given.modalities, given.batch_size, given.size, given.device, True, given.encoder)
    print(
        f"{given.modalities} modalities, {given.encoder}, batch {given.batch_size}, {given.size} x {given.size}, "
        f"{given.device}, {torch.get_num_threads()} threads\n"
    )
    print("| balancer | step / step without | quartiles | before an epoch, in steps (how many of the epochs) |")
    print("|---|---|---|---|")
    for name in given.balancers:
        compare(setting, registry.get("balancer", name), given.repeats)


if __name__ == "__main__":
    main()
