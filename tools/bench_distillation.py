"""Margin-aware distillation with D x D products against N x N matrices, at the shapes of NYUv2: time and peak memory.

    python tools/bench_distillation.py                          # N = 9600, D = 512, about a minute on two cores
    python tools/bench_distillation.py --device cuda --rounds 20

Both forms run in turn, each in a process of its own, so that the peak of one does not hide that of the other; ratios
are medians over rounds. On a CPU the peak is what a process's resident memory grew by during value and gradient, on a
GPU what torch allocated. Absolute times are printed on a GPU alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch

from robustmm import margin_aware_distillation, margin_weights

FORMS = ("gram", "factored")


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--items", type=int, default=9600, help="positions of all maps of a batch")
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)  # what a process of its own is started with
    options = parser.parse_args()
    if options.form:
        print(json.dumps(measure(options.form, options.items, options.channels, options.device)))
        return
    found: dict[str, list[dict[str, float]]] = {form: [] for form in FORMS}
    for _ in range(options.rounds):
        for form in FORMS:
            found[form].append(_in_a_process(form, options))
    values = {form: {round(one["value"], 6) for one in runs} for form, runs in found.items()}
    print(f"N = {options.items}, D = {options.channels}, {options.device}, {options.rounds} rounds; value {values}")
    for what, unit in (("seconds", "s"), ("bytes", "B")):
        pairs = zip(found["gram"], found["factored"], strict=True)
        ratio = statistics.median(gram[what] / factored[what] for gram, factored in pairs)
        medians = {form: statistics.median(one[what] for one in runs) for form, runs in found.items()}
        shown = f" ({medians})" if what == "bytes" or options.device != "cpu" else ""
        print(f"{'time' if unit == 's' else 'peak memory'}: gram / factored = {ratio:.1f}{shown}")


def _in_a_process(form: str, options: argparse.Namespace) -> dict[str, float]:
    own = [f"--{name}={getattr(options, name)}" for name in ("items", "channels", "device")]
    command = [sys.executable, __file__, *own, "--form", form]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def measure(form: str, items: int, channels: int, device: str) -> dict[str, float]:
    """Value, time and peak memory of one evaluation with its gradient, after a small one that warms up."""
    _value(form, 256, channels, device)
    on_gpu = device != "cpu"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    student, teacher, weights = _items(items, channels, device)
    before = torch.cuda.memory_allocated() if on_gpu else _peak()
    started = time.perf_counter()
    loss = margin_aware_distillation(student, teacher, weights, form=form)  # type: ignore[arg-type]
    torch.autograd.grad(loss, student)
    value = loss.item()  # waits for a GPU
    seconds = time.perf_counter() - started
    after = torch.cuda.max_memory_allocated() if on_gpu else _peak()
    return {"value": value, "seconds": seconds, "bytes": max(after - before, 1)}


def _value(form: str, items: int, channels: int, device: str) -> None:
    student, teacher, weights = _items(items, channels, device)
    loss = margin_aware_distillation(student, teacher, weights, form=form)  # type: ignore[arg-type]
    torch.autograd.grad(loss, student)


def _items(items: int, channels: int, device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(items, channels, generator=generator).relu().to(device).requires_grad_()
    teacher = torch.randn(items, channels, generator=generator).relu().to(device)
    return student, teacher, margin_weights(torch.randn(items, 40, generator=generator)).to(device)


def _peak() -> int:
    """Largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
