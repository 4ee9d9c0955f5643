"""Train configurations over several seeds, a few at a time, and print mean and standard deviation as a table.

    python tools/run_seeds.py configs/{plain,dmrnet}_handwritten.yaml --seeds 5 --vary data.dataset.split_seed

    python tools/run_seeds.py configs/*_mslesion.yaml --seeds 3 --vary data.dataset.test_patient=p07,p19,p26

    python tools/run_seeds.py configs/*_pothole.yaml --seeds 3 --combinations --customised configs/plain_pothole.yaml

``--customised`` sets one model for every combination against one model per combination, each trained and selected on
its modalities alone. Finished runs are kept and not repeated; a failed one does not stop the others and shows in the
table's count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

#: Name of the row and the column of the models that were trained for one combination each.
CUSTOMISED = "customised"


@dataclass(frozen=True)
class Scores:
    """What one seed gives: of one run, or of one run per combination.

    Args:
        validation: The selection score.
        mean: Over combinations, on test.
        worst: Of them.
        complete: Of the combination of all modalities.
        combinations: Combination -> score; None where it could not be measured.
    """

    validation: float
    mean: float
    worst: float
    complete: float
    combinations: dict[str, float | None]


#: Row or column of a table -> seed -> what it gave; seeds that did not finish are not there.
Results = Mapping[str, Mapping[int, Scores]]


@dataclass(frozen=True)
class Member:
    """One run of the table.

    Args:
        config: Configuration file.
        seed: Of the run, and of the keys in ``vary``.
        folder: Where it writes.
        combination: Of a customised model, such as ``rgb+depth``: it has these modalities alone.
    """

    config: Path
    seed: int
    folder: Path
    combination: str | None = None

    def command(self, overrides: Sequence[str], vary: Sequence[str]) -> list[str]:
        """The command line of this run."""
        keys = [f"seed={self.seed}", *overrides, *(varied(key, self.seed) for key in vary)]
        if self.combination is not None:
            names = ", ".join(self.combination.split("+"))
            keys += [f"data.modalities=[{names}]", f"evaluation.combinations=[{self.combination}]"]
        options = [part for key in keys for part in ("-o", key)]
        where = ["--folder", str(self.folder), *(["--resume"] if (self.folder / "config.yaml").is_file() else [])]
        return [sys.executable, "-m", "robustmm", "train", "-c", str(self.config), *options, *where]

    @property
    def name(self) -> str:
        """For messages."""
        return " ".join([self.config.stem, *([self.combination] if self.combination else []), f"seed {self.seed}"])

    @property
    def done(self) -> bool:
        """Whether it has come to its end."""
        return (self.folder / "DONE").is_file()

    def scores(self, metric: str | None = None) -> Scores:
        """Scores on test, by default the task's own, and the selection score on validation."""
        record = json.loads((self.folder / "results.json").read_text())["protocols"]["combinations"]
        score = metric or record["score"]
        mean, worst, complete = (record["aggregates"][name][score] for name in ("mean", "worst", "complete"))
        combinations = {row["combination"]: row["metrics"][score] for row in record["rows"]}
        return Scores(record["selection"]["value"], mean, worst, complete, combinations)


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
    print(f"{member.name}: {'done' if member.done else 'FAILED'}", file=sys.stderr, flush=True)


def customised_members(config: Path, members: Sequence[Member], out: Path) -> list[Member]:
    """A model per seed and combination that the first finished one of ``members`` was measured on."""
    finished = next((member for member in members if member.done), None)
    combinations = [] if finished is None else list(finished.scores().combinations)
    folder = out / f"{config.stem}_{CUSTOMISED}"
    seeds = dict.fromkeys(member.seed for member in members)
    return [Member(config, seed, folder / name / f"s{seed}", name) for seed in seeds for name in combinations]


def gather(members: Sequence[Member], metric: str | None = None) -> dict[str, dict[int, Scores]]:
    """What runs gave, by configuration; every configuration is there, seeds where their run finished."""
    results: dict[str, dict[int, Scores]] = {member.config.stem: {} for member in members}
    for member in members:
        if member.done:
            results[member.config.stem][member.seed] = member.scores(metric)
    return results


def gather_customised(members: Sequence[Member], metric: str | None = None) -> dict[int, Scores]:
    """What customised models gave together, seed by seed, where all of a seed's runs finished."""
    groups: dict[int, list[Member]] = {}
    for member in members:
        groups.setdefault(member.seed, []).append(member)
    return {
        seed: joined([member.scores(metric) for member in group])
        for seed, group in groups.items()
        if all(member.done for member in group)
    }


def joined(parts: Sequence[Scores]) -> Scores:
    """One model per combination as if they were one model; the complete combination is the last one."""
    combinations = {name: score for part in parts for name, score in part.combinations.items()}
    return Scores(
        validation=statistics.mean(part.validation for part in parts),
        mean=statistics.mean(part.mean for part in parts),
        worst=min(part.worst for part in parts),
        complete=parts[-1].complete,
        combinations=combinations,
    )


def table(results: Results, baseline: str) -> str:
    """Markdown: a row per configuration, in percent, mean and standard deviation over seeds.

    Args:
        results: Seeds that did not finish show in the count.
        baseline: Configuration whose ``mean`` is subtracted seed by seed in the last column.
    """
    columns = ("validation", "mean", "worst", "complete")
    header = ["configuration", "seeds", *columns, f"mean minus {baseline}, by seed"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    compared = results.get(baseline, {})
    for name, own in results.items():
        if not own:
            lines.append(f"| {name} | none finished |" + " |" * (len(header) - 2))
            continue
        cells = [spread([getattr(scores, column) for scores in own.values()]) for column in columns]
        pairs = [
            scores.mean - compared[seed].mean for seed, scores in own.items() if name != baseline and seed in compared
        ]
        lines.append(f"| {name} | {len(own)} | " + " | ".join([*cells, spread(pairs) if pairs else "-"]) + " |")
    return "\n".join(lines)


def combination_table(results: Results) -> str:
    """Markdown: a row per combination, a column per configuration, in percent over the seeds that finished."""
    names = dict.fromkeys(name for own in results.values() for scores in own.values() for name in scores.combinations)
    lines = ["| " + " | ".join(["combination", *results]) + " |", "|" + "---|" * (len(results) + 1)]
    for name in names:
        found = [
            [score for scores in own.values() if (score := scores.combinations.get(name)) is not None]
            for own in results.values()
        ]
        lines.append("| " + " | ".join([name, *(spread(values) if values else "-" for values in found)]) + " |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """``mean +- sd`` in percent."""
    deviation = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f}{deviation}"


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
    parser.add_argument("--customised", type=Path, metavar="CONFIG", help="also train CONFIG once per combination")
    parser.add_argument("--metric", help="score to print, such as dice; the task's own if not given")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()

    def train(members: Sequence[Member]) -> None:
        with ThreadPoolExecutor(arguments.jobs) as pool:
            for member in members:
                pool.submit(run, member, arguments.override, arguments.vary)

    members = [
        Member(config, seed, arguments.out / config.stem / f"s{seed}")
        for seed in range(arguments.seeds)
        for config in arguments.configs
    ]
    train(members)
    results = gather(members, arguments.metric)
    if arguments.customised is not None:
        customised = customised_members(arguments.customised, members, arguments.out)
        train(customised)
        results[CUSTOMISED] = gather_customised(customised, arguments.metric)
    print(table(results, (arguments.baseline or arguments.configs[0]).stem))
    if arguments.combinations:
        print("\n" + combination_table(results))


if __name__ == "__main__":
    main()
