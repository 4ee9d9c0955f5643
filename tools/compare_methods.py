"""Train every method with every balancer that goes with it on one embedded data set, and print the matrix of scores.

    python tools/compare_methods.py                                   # six views of digits, three of them, short runs
    python tools/compare_methods.py --methods plain dmrnet --seeds 1  # a part of the matrix

A cell is the mean over all combinations of modalities on test, in percent, with its standard deviation over seeds.
Pairs that the components' `requires` and `conflicts` exclude are left empty and listed with the reason. The runs are
short: the matrix shows that every pair works and what it does within one budget, not what each method can do at its
best. Finished runs are kept. Exit status 1 where a run fails or a score is not a number.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

CONFIG = "configs/base/handwritten.yaml"
#: The same for every run: three views, a few epochs.
SHORT = (
    "task=classification",
    "data.modalities=[fourier,karhunen,morphological]",
    "data.batch_size=128",
    "train.epochs=4",
    "train.threads=1",
    "train.log_every=1000",
    "train.checkpoint_every=1000",
    "schedule.warmup_epochs=1",
    "evaluation.unimodal=false",
    "callbacks=[]",
)
#: What a component needs to run at all, or to come past its warm-up within the short run.
NEEDED: Mapping[tuple[str, str], Sequence[str]] = {
    ("method", "dmrnet"): ("method.warmup_epochs=2",),
    ("method", "mmanet"): ("method.warmup_epochs=2", "method.mining_first=0", "method.mining_last=1"),
    ("method", "one_stage_distillation"): ("method.available=fourier",),
    ("balancer", "arl"): ("balancer.first_epoch=1",),
    ("balancer", "opm"): ("balancer.warmup_epochs=1",),
    ("balancer", "g_blending"): ("balancer.super_epoch=2", "balancer.trial_epochs=1"),
    ("balancer", "sample_valuation"): ("balancer.warmup_epochs=1",),
    ("balancer", "diagnosing_relearning"): ("balancer.every=1",),
}


@dataclass(frozen=True)
class Pair:
    """A method with a balancer, over one seed.

    Args:
        method: Registered name.
        balancer: Registered name.
        seed: Of the run.
    """

    method: str
    balancer: str
    seed: int = 0

    def overrides(self) -> list[str]:
        """What the run's configuration says beyond the base."""
        needed = [*NEEDED.get(("method", self.method), ()), *NEEDED.get(("balancer", self.balancer), ())]
        return [*SHORT, f"method={self.method}", f"balancer={self.balancer}", f"seed={self.seed}", *needed]

    def folder(self, out: Path) -> Path:
        """Where the run writes."""
        return out / self.method / self.balancer / f"s{self.seed}"


def reason_against(pair: Pair, config: str) -> str | None:
    """Why the components exclude a pair; None where they do not."""
    from robustmm.config.load import load_config
    from robustmm.errors import ConfigError
    from robustmm.plugin_manager import get_plugins

    try:
        load_config([config], pair.overrides(), get_plugins().registry)
    except ConfigError as error:
        lines = str(error).splitlines()
        if all(" does not work with " in line or " needs " in line for line in lines):
            return "; ".join(line.partition("  ")[2] or line for line in lines)
        raise
    return None


def score(pair: Pair, config: str, out: str) -> tuple[Pair, float | None, str]:
    """Train a pair, unless that was done: its mean over combinations on test, or what went wrong."""
    from robustmm.config.load import load_config
    from robustmm.engine.run_folder import RunFolder
    from robustmm.errors import RobustmmError
    from robustmm.plugin_manager import get_plugins
    from robustmm.run import RunRequest, train

    folder = RunFolder(pair.folder(Path(out)))
    try:
        if not folder.done:
            registry = get_plugins().registry
            loaded = load_config([config], pair.overrides(), registry)
            train(RunRequest(loaded, folder=folder.path, overwrite=True), registry)
    except RobustmmError as error:
        return pair, None, str(error)
    record = json.loads(folder.results.read_text())["protocols"]["combinations"]
    values = [row["metrics"][record["score"]] for row in record["rows"]]
    value = record["aggregates"]["mean"][record["score"]]
    sound = value is not None and all(one is not None and math.isfinite(one) for one in values)
    return pair, value if sound else None, "" if sound else f"scores {values}"


def matrix(methods: Sequence[str], balancers: Sequence[str], scores: Mapping[Pair, float]) -> str:
    """Markdown: a row per method, a column per balancer."""
    lines = ["| method | " + " | ".join(balancers) + " |", "|" + "---|" * (len(balancers) + 1)]
    for method in methods:
        cells = []
        for balancer in balancers:
            own = [100 * value for pair, value in scores.items() if (pair.method, pair.balancer) == (method, balancer)]
            cells.append(_spread(own) if own else "")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def main() -> int:
    """Train what is missing, print the matrix; the exit status."""
    from robustmm.plugin_manager import get_plugins

    registry = get_plugins().registry
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=CONFIG)
    parser.add_argument("--methods", nargs="+", choices=registry.names("method"), default=registry.names("method"))
    parser.add_argument("--balancers", nargs="+", choices=registry.names("balancer"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", default="runs/matrix")
    arguments = parser.parse_args()
    others = [name for name in registry.names("balancer") if name != "none"]
    balancers = arguments.balancers or ["none", *others]
    pairs = [Pair(method, balancer) for method in arguments.methods for balancer in balancers]
    reasons = {pair: reason for pair in pairs if (reason := reason_against(pair, arguments.config)) is not None}
    runs = [Pair(p.method, p.balancer, seed) for seed in range(arguments.seeds) for p in pairs if p not in reasons]
    started = time.perf_counter()
    scores, failures = _run_all(runs, arguments)
    print(matrix(arguments.methods, balancers, scores))
    grouped: dict[str, list[str]] = {}
    for pair, reason in reasons.items():
        why = reason.partition(", not ")[0].partition("; choose ")[0]  # the same words for all that it excludes
        grouped.setdefault(why, []).append(f"{pair.method} with {pair.balancer}")
    for reason, names in grouped.items():
        print(f"\nleft out: {', '.join(names)}: {reason}")
    for pair, reason in failures.items():
        print(f"\nFAILED: {pair.method} with {pair.balancer}, seed {pair.seed}: {reason}")
    print(f"\n{len(runs)} runs, {(time.perf_counter() - started) / 60:.1f} minutes, {arguments.jobs} at a time")
    return 1 if failures else 0


def _run_all(runs: Sequence[Pair], arguments: Any) -> tuple[dict[Pair, float], dict[Pair, str]]:
    scores: dict[Pair, float] = {}
    failures: dict[Pair, str] = {}
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(score, pair, arguments.config, arguments.out) for pair in runs]
        for done in waiting:
            pair, value, problem = done.result()
            if value is None:
                failures[pair] = problem
            else:
                scores[pair] = value
            print(f"{pair.method} {pair.balancer} s{pair.seed}: {problem or f'{value:.4f}'}", file=sys.stderr)
    return scores, failures


if __name__ == "__main__":
    sys.exit(main())
