"""Sweep configurations over seeds, and print means and standard deviations in percent, as docs/results.md has them.

    python tools/run_seeds.py configs/{plain,dmrnet}_handwritten.yaml --seeds 5 --vary data.dataset.split_seed

    python tools/run_seeds.py configs/*_mslesion.yaml --seeds 3 --vary data.dataset.test_patient=p07,p19,p26

The runs are those of ``robustmm sweep``, which keeps what is finished; a failed one shows in the table's count. Tests
and intervals are in ``robustmm compare`` on the same folder, models for one combination in ``robustmm customise``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from robustmm.sweep.plan import PLAN, Plan, read_plan


@dataclass(frozen=True)
class Scores:
    """What one run gives.

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


def scores_of(folder: Path, metric: str | None = None) -> Scores:
    """Scores of a finished run on test, by default the task's own, and the selection score on validation."""
    record = json.loads((folder / "results.json").read_text())["protocols"]["combinations"]
    score = metric or record["score"]
    mean, worst, complete = (record["aggregates"][name][score] for name in ("mean", "worst", "complete"))
    combinations = {row["combination"]: row["metrics"][score] for row in record["rows"]}
    return Scores(record["selection"]["value"], mean, worst, complete, combinations)


def gather(plan: Plan, folder: Path, metric: str | None = None) -> dict[str, dict[int, Scores]]:
    """What runs gave, by group; every group is there, seeds where their run finished."""
    return {
        group: {
            member.seed: scores_of(folder / member.name, metric)
            for member in members
            if (folder / member.name / "DONE").is_file()
        }
        for group, members in plan.groups().items()
    }


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
    parser.add_argument("configs", nargs="+")
    parser.add_argument("--seeds", default="5", help="as in robustmm sweep, like --vary, --jobs and -o")
    parser.add_argument("--jobs", help="runs at a time")
    parser.add_argument("--out", type=Path, default=Path("runs/seeds"))
    parser.add_argument("--baseline", help="group to compare with; the first one if not given")
    parser.add_argument("--vary", action="append", default=[], metavar="KEY[+N|=A,B]", help="also set KEY by seed")
    parser.add_argument("--combinations", action="store_true", help="also print the score of each combination")
    parser.add_argument("--metric", help="score to print, such as dice; the task's own if not given")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "robustmm", "sweep", *arguments.configs, "--seeds", arguments.seeds]
    command += ["--folder", str(arguments.out), "--extend", *(["--jobs", arguments.jobs] if arguments.jobs else [])]
    command += [part for text in arguments.vary for part in ("--vary", text)]
    command += [part for text in arguments.override for part in ("-o", text)]
    code = subprocess.run(command, stdout=sys.stderr, check=False).returncode
    if code not in (0, 1):  # 1: some runs failed, the table counts the others
        raise SystemExit(code)
    plan = read_plan(arguments.out / PLAN)
    asked = replace(plan, members=tuple(member for member in plan.members if member.config in arguments.configs))
    results = gather(asked, arguments.out, arguments.metric)  # the folder may hold other calls' runs too
    print(table(results, arguments.baseline or next(iter(results))))
    if arguments.combinations:
        print("\n" + combination_table(results))


if __name__ == "__main__":
    main()
