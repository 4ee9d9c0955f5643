"""What dense training costs: ESANet's step under DMRNet and MMANet against a hand-written loop over the same modules.

    python tools/bench_segmentation.py                          # small pictures and ResNet-18 on a CPU, some minutes
    python tools/bench_segmentation.py --part loader            # pictures read and augmented per second and worker
    python tools/bench_segmentation.py --device cuda            # ResNet-50, batch 8, 480 x 640, all precisions

Compared steps run in turn within one process, and the median of the ratios of neighbouring pairs is printed. Training
times, throughput and memory are printed on a GPU alone; the loader's rate is that of a CPU by its nature.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_step import component, looped, pairs, report, synchronise, timed
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from robustmm import (
    VOID,
    Batch,
    Blueprint,
    Clock,
    Method,
    Modality,
    Scaling,
    SegmentationTask,
    TrunkParts,
    gaussian_kl,
    margin_aware_distillation,
    margin_weights,
)
from robustmm.builder import Builder
from robustmm.data.loaders import PartLoader
from robustmm.data.parts import Part
from robustmm.plugin_manager import get_plugins
from robustmm.seeding import generator_for, seed_torch

CLASSES = 40
#: Epochs behind the warm-up, where all terms are at work.
EPOCH = 20
METHODS = ("dmrnet", "mmanet")


@dataclass(frozen=True)
class Setting:
    """One model and its data.

    Args:
        encoder: Registered name.
        batch_size: B.
        size: Height and width.
        device: Where to run.
        precision: Of Fabric.
        channels_last: Memory format of the weights.
        compiled: Whether trunk and heads go through ``torch.compile``.
    """

    encoder: str
    batch_size: int
    size: tuple[int, int]
    device: torch.device
    precision: str = "32-true"
    channels_last: bool = False
    compiled: bool = False


class Pretrained:
    """What a run offers before training, without training: of the teacher only its cost is of interest."""

    def train(self, name: str, method: Method, *, epochs: int | None = None) -> None:
        method.eval()

    def load(self, path: str, method: Method) -> None:
        raise AssertionError("no file is asked for")


def make_method(name: str, setting: Setting) -> Any:
    """The method over ESANet, in the middle of training: one combination is weak or hard."""
    seed_torch(0)
    modalities = (
        Modality("rgb", "image", (3, *setting.size), Scaling("constants", (123.7, 116.3, 103.5), (58.4, 57.1, 57.4))),
        Modality("depth", "image", (1, *setting.size), Scaling("constants", (2841.95,), (1417.26,), invalid=0.0)),
    )
    known = {modality.name: modality for modality in modalities}
    parts = TrunkParts(
        modalities,
        dense=True,
        make_encoder=lambda name: component("encoder", setting.encoder, modality=known[name]),
        make_fusion=lambda channels: component("fusion", "se_add", channels=channels),
        make_policy=lambda channels: component("missing_policy", "zero_feature", channels=channels),
        skip_absent=False,
    )
    blueprint = Blueprint(
        modalities,
        SegmentationTask([str(number) for number in range(CLASSES)]),
        lambda: component("trunk", "esanet", parts=parts),
        lambda channels: component("head", "esanet_decoder", channels=channels, num_outputs=CLASSES),
    )
    method = component("method", name, blueprint=blueprint)
    method.to(setting.device)
    if setting.channels_last:
        method.to(memory_format=torch.channels_last)
    method.on_fit_start(Pretrained())
    (method.hard if name == "dmrnet" else method.weak).replace([("depth",)])
    if setting.compiled:
        for module in (method.trunk, method.head):
            module.compile()
    return method.train()


def make_batch(setting: Setting) -> Batch:
    """Random pictures that are all there, a tenth of the labels void."""
    generator = generator_for(0, "bench")
    shape = (setting.batch_size, *setting.size)
    inputs = {
        "rgb": 255 * torch.rand(shape[0], 3, *setting.size, generator=generator),
        "depth": 500 + 5000 * torch.rand(shape[0], 1, *setting.size, generator=generator),
    }
    target = torch.randint(CLASSES, shape, generator=generator)
    target = target.masked_fill(torch.rand(shape, generator=generator) < 0.1, VOID)
    observed = torch.ones(setting.batch_size, 2, dtype=torch.bool)
    ids = tuple(map(str, range(setting.batch_size)))
    return Batch(inputs, observed, target, ids, torch.arange(setting.batch_size)).to(setting.device)


def our_step(name: str, setting: Setting) -> Callable[[], None]:
    """The step of the training loop, behind the warm-up."""
    clock = Clock(epoch=EPOCH, step=1, epochs=300, steps_per_epoch=1)
    return looped(make_method(name, setting), make_batch(setting), setting.device, clock, setting.precision)


def hand_written_step(name: str, setting: Setting) -> Callable[[], None]:
    """The same modules and formulas as someone would write the loop for exactly this run."""
    method, batch = make_method(name, setting), make_batch(setting)
    optimizer = torch.optim.SGD(method.parameters(), lr=1e-3, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    targets = [
        method.task.at(batch.target, tuple(side // factor for side in setting.size)) for factor in (1, 8, 16, 32)
    ]
    losses = {"dmrnet": _dmrnet_loss, "mmanet": _mmanet_loss}[name]

    def step() -> None:
        code = torch.randint(1, 4, (setting.batch_size,), generator=generator)
        presence = ((code[:, None] >> torch.arange(2)) & 1).bool().to(setting.device)
        optimizer.zero_grad(set_to_none=True)
        loss = losses(method, batch, presence, targets, setting.size)
        loss.backward()
        float(loss.detach())  # the loop looks at its loss on a CPU, too
        optimizer.step()

    return step


def _cross_entropy(scales: list[Tensor], targets: list[Tensor]) -> Tensor:
    return torch.stack(
        [F.cross_entropy(one, target, ignore_index=VOID) for one, target in zip(scales, targets, strict=True)]
    ).sum()


def _on_rows(scales: list[Tensor], targets: list[Tensor], keep: Tensor) -> Tensor:
    return _cross_entropy(scales, [target.masked_fill(~keep[:, None, None], VOID) for target in targets]).nan_to_num()


def _dmrnet_loss(method: Any, batch: Batch, presence: Tensor, targets: list[Tensor], size: tuple[int, int]) -> Tensor:
    fused = method.trunk(batch.inputs, presence)[1]
    mu, log_var = method.mean(fused[-1]), method.log_var(fused[-1]).clamp(-10, 10)
    levels = [*fused[:-1], mu + torch.randn_like(mu) * (0.5 * log_var).exp()]
    divergence = gaussian_kl(mu, log_var, positions="mean").mean()
    hard = presence[:, 1] & ~presence[:, 0]
    return (
        _cross_entropy(method.head.scales(levels, size), targets)
        + 1e-3 * divergence
        + 0.5 * _on_rows(method.auxiliary_head.scales(levels, size), targets, hard)
    )


def _mmanet_loss(method: Any, batch: Batch, presence: Tensor, targets: list[Tensor], size: tuple[int, int]) -> Tensor:
    fused = method.trunk(batch.inputs, presence)[1]
    teacher = method._teacher
    with torch.no_grad():
        theirs = teacher.trunk(batch.inputs, batch.observed)[1]
        logits = teacher.head(theirs, size)
    weak = presence[:, 1] & ~presence[:, 0]
    loss = _cross_entropy(method.head.scales(fused, size), targets)
    loss = loss + 0.5 * _on_rows(method.regularisation_head.scales(fused, size), targets, weak)
    for own, known in zip(fused[1:], theirs[1:], strict=True):
        grid = [min(side, largest) for side, largest in zip(own.shape[2:], (30, 40), strict=True)]
        items = [F.adaptive_avg_pool2d(x, grid).movedim(1, -1).flatten(0, -2) for x in (own, known, logits)]
        loss = loss + 30.0 * margin_aware_distillation(items[0], items[1], margin_weights(items[2]))
    return loss


def overhead(setting: Setting, repeats: int) -> None:
    """Our step against the hand-written one."""
    for name in METHODS:
        ratios = pairs(
            our_step(name, setting), hand_written_step(name, setting), repeats=repeats, device=setting.device
        )
        report(f"step / hand-written loop, {name}", ratios)


def throughput(setting: Setting, repeats: int) -> None:
    """Pictures per second and peak memory on a GPU, by precision."""
    kinds = {
        "float32": setting,
        "bf16": replace(setting, precision="bf16-mixed"),
        "bf16, channels_last": replace(setting, precision="bf16-mixed", channels_last=True),
        "bf16, compile": replace(setting, precision="bf16-mixed", compiled=True),
    }
    for name in METHODS:
        for kind, own in kinds.items():
            step = our_step(name, own)
            for _ in range(5):
                step()
            torch.cuda.reset_peak_memory_stats()
            seconds = statistics.median(timed(step, setting.device) for _ in range(repeats))
            peak = torch.cuda.max_memory_allocated() / 2**30
            print(f"{name}, {kind:<20} {setting.batch_size / seconds:7.1f} pictures/s, peak {peak:.1f} GiB", flush=True)
            del step
            torch.cuda.empty_cache()


def loading(setting: Setting, repeats: int, workers: int) -> None:
    """Pictures read, augmented and collated per second, from files as `robustmm data prepare nyuv2` writes them."""
    with tempfile.TemporaryDirectory() as folder:
        _write_tree(Path(folder), 64)
        component = Builder(get_plugins().registry).component
        from robustmm.config.component import ComponentSection

        options = get_plugins().registry.get("dataset", "nyuv2").options(root=folder)
        splits = component("dataset", "dataset", ComponentSection("dataset", "nyuv2", options))()
        part = Part(splits.train, list(range(len(splits.train))), augment_seed=0)
        for count in range(workers + 1):
            loader = PartLoader(part, splits.modalities, batch_size=8, workers=count)
            list(loader.training(0))  # starts the workers
            rates = [_rate(loader, epoch) for epoch in range(1, repeats + 1)]
            where = "in the main process" if count == 0 else f"by {count} worker(s)"
            print(f"480 x 640 RGB-D pictures read and augmented {where}: {statistics.median(rates):.0f} per second")
            if setting.device.type == "cuda" and count:
                _waiting(setting, loader)


def _rate(loader: PartLoader, epoch: int) -> float:
    start = time.perf_counter()
    seen = sum(len(batch) for batch in loader.training(epoch))
    return seen / (time.perf_counter() - start)


def _waiting(setting: Setting, loader: PartLoader) -> None:
    """Share of the time in which the GPU waits for the loader's next batch."""
    step = our_step("dmrnet", replace(setting, precision="bf16-mixed"))
    step()
    waited = started = 0.0
    batches: Iterator[Batch] = loader.training(100)
    started = time.perf_counter()
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        waited += time.perf_counter() - asked
        if batch is None:
            break
        step()
        synchronise(setting.device)
    print(f"    share of the time without a batch: {waited / (time.perf_counter() - started):.0%}")


def _write_tree(root: Path, count: int) -> None:
    """Pictures with as much detail as photographs have: noise of several sizes."""
    generator = np.random.default_rng(0)

    def noise(channels: int) -> Any:
        layers = [generator.random((480 // step, 640 // step, channels)) for step in (1, 4, 16, 80)]
        grown = [np.kron(layer, np.ones((480 // len(layer), 480 // len(layer), 1))) for layer in layers]
        return sum(weight * layer for weight, layer in zip((0.05, 0.15, 0.3, 0.5), grown, strict=True))

    ids = [f"{number:04d}" for number in range(count)]
    for split in ("train", "test"):
        for kind in ("rgb", "depth", "labels_40"):
            (root / split / kind).mkdir(parents=True)
        (root / f"{split}.txt").write_text("\n".join(ids) + "\n")
        for name in ids if split == "train" else ids[:2]:
            Image.fromarray((255 * noise(3)).astype(np.uint8)).save(root / split / "rgb" / f"{name}.png")
            Image.fromarray((500 + 6000 * noise(1)[..., 0]).astype(np.uint16)).save(
                root / split / "depth" / f"{name}.png"
            )
            label = (41 * np.kron(generator.random((12, 16)), np.ones((40, 40)))).astype(np.uint8)
            Image.fromarray(label).save(root / split / "labels_40" / f"{name}.png")
        (root / f"{split}.txt").write_text("\n".join(ids if split == "train" else ids[:2]) + "\n")


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["all", "step", "loader"], default="all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--encoder", help="default: esanet_resnet50 on a GPU, esanet_resnet18 on a CPU")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="multiples of 32")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="most loader processes to try")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    setting = Setting(
        arguments.encoder or ("esanet_resnet50" if on_gpu else "esanet_resnet18"),
        arguments.batch_size or (8 if on_gpu else 4),
        tuple(arguments.size or ((480, 640) if on_gpu else (96, 128))),
        device,
    )
    print(
        f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, {setting.encoder}, "
        f"batch {setting.batch_size}, {setting.size[0]} x {setting.size[1]}"
    )
    if arguments.part in ("all", "step"):
        overhead(setting, arguments.repeats)
        if on_gpu:
            throughput(setting, arguments.repeats)
    if arguments.part in ("all", "loader"):
        loading(setting, 3, arguments.workers)


if __name__ == "__main__":
    main()
