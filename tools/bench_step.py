"""What robustmm costs and saves: its step against a hand-written loop, skipping absent rows, all combinations at once.

    python tools/bench_step.py                 # everything, about five minutes on two cores
    python tools/bench_step.py --part overhead --modalities 3

Compared commands run in turn within one process, and the median of the ratios of neighbouring pairs is printed, so a
machine that is slower for a while does not favour one side. Absolute times are printed on a GPU alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from robustmm import (
    Balancer,
    Batch,
    Blueprint,
    ClassificationTask,
    Clock,
    CombinationSampler,
    Method,
    Modality,
    Scaling,
)
from robustmm.engine.evaluate import evaluate_combinations
from robustmm.engine.record import Recorder, Views
from robustmm.engine.step import StepContext, train_step
from robustmm.engine.watch import LossWatch
from robustmm.masks import all_combinations, draw_uniform, presence_of
from robustmm.models.trunk import LateTrunk
from robustmm.plugin_manager import get_plugins
from robustmm.seeding import generator_for, seed_torch

CLASSES = 10
#: Altered inputs per modality.
ALTERATIONS = 5


@dataclass(frozen=True)
class Setting:
    """One model and its data.

    Args:
        modalities: M.
        batch_size: B.
        size: Height and width of each image.
        device: Where to run.
        skip_absent: Encode present rows alone.
        encoder: Registered name.
    """

    modalities: int
    batch_size: int
    size: int
    device: torch.device
    skip_absent: bool = True
    encoder: str = "resnet18"


class UniformSampler(CombinationSampler):
    """The 2**M - 1 combinations, equally likely, per sample."""

    def __call__(self, observed: Tensor, generator: torch.Generator) -> Tensor:
        return draw_uniform(observed, generator)


def component(kind: str, name: str, **context: object) -> object:
    """A registered component with default options."""
    found = get_plugins().registry.get(kind, name)
    options = found.options()
    return found.build(**context, **{field: getattr(options, field) for field in type(options).model_fields})


def modalities_of(setting: Setting) -> tuple[Modality, ...]:
    """Colour images that need no scaling."""
    shape = (3, setting.size, setting.size)
    return tuple(Modality(f"m{i}", "image", shape, Scaling("none")) for i in range(setting.modalities))


def make_method(setting: Setting) -> Method:
    """Late concatenation of one encoder per modality, as a plain method."""
    seed_torch(0)
    modalities = modalities_of(setting)

    def make_trunk() -> LateTrunk:
        encoders = {modality.name: component("encoder", setting.encoder, modality=modality) for modality in modalities}
        widths = {name: (encoder.channels[-1],) for name, encoder in encoders.items()}
        fusion = component("fusion", "concat", channels=widths)
        policy = component("missing_policy", "zero_feature", channels=widths)
        return LateTrunk(modalities, encoders, fusion, policy, skip_absent=setting.skip_absent)

    task = ClassificationTask([str(number) for number in range(CLASSES)])
    blueprint = Blueprint(
        modalities,
        task,
        make_trunk,
        lambda channels: component("head", "linear", channels=channels, num_outputs=CLASSES),
    )
    return Method(blueprint).to(setting.device)


def make_batch(setting: Setting, seed: int = 0) -> Batch:
    """Random images that are all there."""
    generator = generator_for(seed, "bench")
    shape = (setting.batch_size, 3, setting.size, setting.size)
    inputs = {f"m{i}": torch.randn(shape, generator=generator) for i in range(setting.modalities)}
    target = torch.randint(CLASSES, (setting.batch_size,), generator=generator)
    observed = torch.ones(setting.batch_size, setting.modalities, dtype=torch.bool)
    ids = tuple(map(str, range(setting.batch_size)))
    return Batch(inputs, observed, target, ids, torch.arange(setting.batch_size)).to(setting.device)


def our_step(setting: Setting) -> Callable[[], None]:
    """The step of `looped` for the model of a setting."""
    clock = Clock(epoch=0, step=0, epochs=1, steps_per_epoch=1)
    return looped(make_method(setting).train(), make_batch(setting), setting.device, clock)


def looped(
    method: Method, batch: Batch, device: torch.device, clock: Clock, precision: str = "32-true"
) -> Callable[[], None]:
    """A step as the training loop makes it: seeds, masks, step, loss watch."""
    fabric = Fabric(accelerator=device.type, devices=1, precision=precision)  # type: ignore[arg-type]
    optimizer = fabric.setup_optimizers(torch.optim.SGD(method.parameters(), lr=1e-3, momentum=0.9))
    context = StepContext(fabric, method, Balancer(), optimizer, method.trunk.parameter_groups(), None, 0, clock)  # type: ignore[arg-type]
    watch = LossWatch(method.modalities, every_step=device.type == "cpu")
    sampler = UniformSampler()

    def step() -> None:
        seed_torch(0, clock.step, 0)
        presence = sampler(batch.observed, generator_for(0, "masks", clock.step, 0))
        terms = train_step(context, [batch], presence)
        watch.add(clock, terms, presence)

    return step


def hand_written_step(setting: Setting) -> Callable[[], None]:
    """The same arithmetic as someone would write it for exactly this model: encode all rows, mask, concatenate."""
    method, batch = make_method(setting), make_batch(setting)
    method.train()
    encoders = [method.trunk.encoders[name] for name in batch.modalities]
    head = next(module for module in method.head.modules() if isinstance(module, nn.Linear))
    optimizer = torch.optim.SGD(method.parameters(), lr=1e-3, momentum=0.9)
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        code = torch.randint(1, 2**setting.modalities, (setting.batch_size,), generator=generator)
        mask = ((code[:, None] >> torch.arange(setting.modalities)) & 1).float().to(setting.device)
        optimizer.zero_grad(set_to_none=True)
        features = [encoder(x)[-1].mean(dim=(2, 3)) for encoder, x in zip(encoders, batch.inputs.values(), strict=True)]
        fused = torch.cat([feature * mask[:, i : i + 1] for i, feature in enumerate(features)], dim=1)
        loss = F.cross_entropy(head(fused), batch.target)
        loss.backward()
        optimizer.step()

    return step


def pairs(first: Callable[[], None], second: Callable[[], None], *, repeats: int, device: torch.device) -> list[float]:
    """Ratios of times first / second, taken in turn, after a warm-up of both."""
    for _ in range(3):
        first()
        second()
    ratios = []
    for number in range(repeats):
        order = (first, second) if number % 2 == 0 else (second, first)
        times = {function: timed(function, device) for function in order}
        ratios.append(times[first] / times[second])
    return ratios


def timed(function: Callable[[], None], device: torch.device) -> float:
    """Seconds of one call, the device's queue included."""
    synchronise(device)
    start = time.perf_counter()
    function()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    """Wait for the GPU; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def report(text: str, ratios: Sequence[float]) -> None:
    """One line: median and quartiles."""
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"{text:<72} {middle:6.3f}   (quartiles {low:.3f} to {high:.3f}, {len(ratios)} pairs)", flush=True)


def overhead(setting: Setting, repeats: int) -> None:
    """Our step without skipping, which does the same work, and with it."""
    everything = Setting(**{**vars(setting), "skip_absent": False})
    ratios = pairs(our_step(everything), hand_written_step(setting), repeats=repeats, device=setting.device)
    report(f"step / hand-written loop, M = {setting.modalities}, skip_absent off", ratios)


def skipping(setting: Setting, repeats: int) -> None:
    """The same step with and without encoding absent rows."""
    everything = Setting(**{**vars(setting), "skip_absent": False})
    ratios = pairs(our_step(setting), our_step(everything), repeats=repeats, device=setting.device)
    present = 2 ** (setting.modalities - 1) / (2**setting.modalities - 1)
    report(f"step with skip_absent / without, M = {setting.modalities} ({present:.0%} of rows present)", ratios)


def evaluation(setting: Setting, repeats: int) -> None:
    """All combinations against one complete pass, and the loop that encodes again for each."""
    method, batch = make_method(setting), make_batch(setting)
    method.eval()
    complete = [method.modalities]

    def run(combinations: list[tuple[str, ...]]) -> Callable[[], None]:
        return lambda: evaluate_combinations(method, [batch], setting.device, combinations=combinations)  # type: ignore[func-returns-value, return-value]

    everything = all_combinations(method.modalities)
    ratios = pairs(run(everything), run(complete), repeats=repeats, device=setting.device)
    report(f"all {len(everything)} combinations / one complete pass, M = {setting.modalities}", ratios)

    @torch.inference_mode()
    def loop() -> None:
        for combination in everything:
            shown = presence_of(combination, method.modalities).expand(len(batch), -1)
            hidden = {name: x if name in combination else torch.zeros_like(x) for name, x in batch.inputs.items()}
            method.trunk.skip_absent = False
            method(hidden, shown)
        method.trunk.skip_absent = setting.skip_absent

    ratios = pairs(loop, run(complete), repeats=max(2, repeats // 5), device=setting.device)
    report(f"loop over {len(everything)} combinations / one complete pass, M = {setting.modalities}", ratios)


def altered_views(setting: Setting, repeats: int) -> None:
    """Recording inputs of which one modality is altered, against asking the model for each with all its inputs."""
    method, batch = make_method(setting).eval(), make_batch(setting)
    names = [name for name in method.modalities for _ in range(ALTERATIONS)]
    changes = [lambda batch, name=name: {name: batch.inputs[name] + 1} for name in names]
    views = Views([method.modalities], {str(place): change for place, change in enumerate(changes)})
    recorder = Recorder(method, setting.device, views)

    @torch.inference_mode()
    def loop() -> None:
        for change in [lambda batch: {}, *changes]:
            logits = method({**batch.inputs, **change(batch)}, batch.observed).logits
            method.task.record(logits, batch.target)

    ratios = pairs(loop, lambda: recorder(batch), repeats=max(2, repeats // 5), device=setting.device)  # type: ignore[arg-type, return-value]
    report(f"loop over {len(names)} altered inputs / recorded views, M = {setting.modalities}", ratios)


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["all", "overhead", "skip", "evaluate", "altered"], default="all")
    parser.add_argument("--modalities", type=int, help="one M instead of each part's own")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--size", type=int, default=64, help="height and width of the images")
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    print(
        f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, {arguments.encoder}, "
        f"batch {arguments.batch_size}, {arguments.size} x {arguments.size}"
    )
    plan = {
        "overhead": (overhead, (2, 3)),
        "skip": (skipping, (2, 3)),
        "evaluate": (evaluation, (3, 6)),
        "altered": (altered_views, (3, 6)),
    }
    for name, (measure, sizes) in plan.items():
        if arguments.part not in ("all", name):
            continue
        for modalities in [arguments.modalities] if arguments.modalities else sizes:
            setting = Setting(modalities, arguments.batch_size, arguments.size, device, encoder=arguments.encoder)
            measure(setting, arguments.repeats)
            if device.type == "cuda" and name in ("overhead", "skip"):
                seconds = statistics.median(timed(our_step(setting), device) for _ in range(5))
                print(f"    {arguments.batch_size / seconds:.0f} samples per second")


if __name__ == "__main__":
    main()
