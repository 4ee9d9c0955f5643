"""Train configurations over several seeds, a few at a time, and print mean and standard deviation as a table.

    python tools/run_seeds.py configs/{plain,dmrnet}_handwritten.yaml --seeds 5 --vary data.dataset.split_seed

    python tools/run_seeds.py configs/*_mslesion.yaml --seeds 3 --vary data.dataset.test_patient=p07,p19,p26

Finished runs are kept and not repeated; a failed one does not stop the others and is named in the table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Member:
    """One run of the table.

    Args:
        config: Configuration file.
        seed: Of the run, and of the keys in ``vary``.
        folder: Where it writes.
    """

    config: Path
    seed: int
    folder: Path

    def command(self, overrides: Sequence[str], vary: Sequence[str]) -> list[str]:
        """The command line of this run."""
        keys = [f"seed={self.seed}", *overrides, *(varied(key, self.seed) for key in vary)]
        options = [part for key in keys for part in ("-o", key)]
        where = ["--folder", str(self.folder), *(["--resume"] if (self.folder / "config.yaml").is_file() else [])]
        return [sys.executable, "-m", "robustmm", "train", "-c", str(self.config), *options, *where]

    @property
    def done(self) -> bool:
        """Whether it has come to its end."""
        return (self.folder / "DONE").is_file()

    def scores(self) -> dict[str, float]:
        """Aggregates of the task's score on test, and the selection score on validation, as the table shows them."""
        record, factor = self._record()
        values = {name: record["aggregates"][name][record["score"]] for name in ("mean", "worst", "complete")}
        return {name: factor * value for name, value in {"validation": record["selection"]["value"], **values}.items()}

    def by_combination(self) -> dict[str, float | None]:
        """The task's score on test of each combination, as the table shows it."""
        record, factor = self._record()
        scores = {row["combination"]: row["metrics"][record["score"]] for row in record["rows"]}
        return {name: None if score is None else factor * score for name, score in scores.items()}

    def _record(self) -> tuple[dict[str, Any], float]:
        """The results, and what makes its scores percent; errors of target quantities keep their unit."""
        record = json.loads((self.folder / "results.json").read_text())["protocols"]["combinations"]
        return record, 1.0 if "targets" in record else 100.0


def varied(key: str, seed: int) -> str:
    """``key`` gets the seed; ``key+1`` the seed plus one, for keys that count from 1; ``key=a,b`` the seed-th value."""
    name, listed, values = key.partition("=")
    if listed:
        return f"{name}={values.split(',')[seed]}"
    name, _, offset = key.partition("+")
    return f"{name}={seed + int(offset or 0)}"


def run(member: Member, overrides: Sequence[str], vary: Sequence[str]) -> None:
    """Train one member, with its output in a file beside its folder."""
    if member.done:
        return
    member.folder.parent.mkdir(parents=True, exist_ok=True)
    with member.folder.with_suffix(".log").open("w") as log:
        subprocess.run(member.command(overrides, vary), stdout=log, stderr=subprocess.STDOUT, check=False)
    print(
        f"{member.config.stem} seed {member.seed}: {'done' if member.done else 'FAILED'}", file=sys.stderr, flush=True
    )


def table(members: Sequence[Member], baseline: Path) -> str:
    """Markdown: a row per configuration, in percent or the target's unit, mean and standard deviation over seeds.

    Args:
        members: All of them; those that did not finish are left out and show in the count.
        baseline: Configuration whose ``mean`` is subtracted seed by seed in the last column.
    """
    columns = ("validation", "mean", "worst", "complete")
    header = ["configuration", "seeds", *columns, f"mean minus {baseline.stem}, by seed"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    finished = {(member.config, member.seed): member.scores() for member in members if member.done}
    for config in dict.fromkeys(member.config for member in members):
        own = {seed: scores for (of, seed), scores in finished.items() if of == config}
        if not own:
            lines.append(f"| {config.stem} | none finished |" + " |" * (len(header) - 2))
            continue
        cells = [spread([scores[column] for scores in own.values()]) for column in columns]
        pairs = [
            scores["mean"] - finished[baseline, seed]["mean"]
            for seed, scores in own.items()
            if config != baseline and (baseline, seed) in finished
        ]
        lines.append(f"| {config.stem} | {len(own)} | " + " | ".join([*cells, spread(pairs) if pairs else "-"]) + " |")
    return "\n".join(lines)


def combination_table(members: Sequence[Member]) -> str:
    """Markdown: a row per combination, a column per configuration, over the seeds that finished."""
    configs = list(dict.fromkeys(member.config for member in members))
    scores = [(member.config, member.by_combination()) for member in members if member.done]
    names = list(dict.fromkeys(name for _, own in scores for name in own))
    lines = ["| " + " | ".join(["combination", *(config.stem for config in configs)]) + " |"]
    lines.append("|" + "---|" * (len(configs) + 1))
    for name in names:
        found = [
            [score for of, own in scores if of == config and (score := own.get(name)) is not None] for config in configs
        ]
        lines.append("| " + " | ".join([name, *(spread(values) if values else "-" for values in found)]) + " |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """``mean +- sd``."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--out", type=Path, default=Path("runs/seeds"))
    parser.add_argument("--baseline", type=Path, help="configuration to compare with; the first one if not given")
    parser.add_argument("--vary", action="append", default=[], metavar="KEY[+N|=A,B]", help="also set KEY by seed")
    parser.add_argument("--combinations", action="store_true", help="also print the score of each combination")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    members = [
        Member(config, seed, arguments.out / config.stem / f"s{seed}")
        for seed in range(arguments.seeds)
        for config in arguments.configs
    ]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for member in members:
            pool.submit(run, member, arguments.override, arguments.vary)
    print(table(members, arguments.baseline or arguments.configs[0]))
    if arguments.combinations:
        print("\n" + combination_table(members))


if __name__ == "__main__":
    main()
