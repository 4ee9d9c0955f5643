"""Finished run folders that were never trained: a configuration and results, written in milliseconds."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

#: As `robustmm train` writes it, as far as a comparison looks.
CONFIG: dict[str, Any] = {
    "name": "plain_demo",
    "seed": 0,
    "data": {"dataset": {"name": "demo", "split_seed": 0}, "modalities": None, "batch_size": 8, "workers": 0},
    "model": {"fusion": {"name": "concat"}, "missing_policy": {"name": "zero_feature"}},
    "method": {"name": "plain"},
    "balancer": {"name": "none"},
    "optimizer": {"name": "adamw", "lr": 0.01},
    "train": {"epochs": 2, "threads": 1},
    "evaluation": {"pictures": 6},
    "callbacks": [],
}
#: What `write_group` adds to the scores of four seeds.
GAINS, NOTHING = [0.05, 0.06, 0.04, 0.055], [0.0, 0.0, 0.0, 0.0]
DIRECTIONS = {"accuracy": "max", "ece": "min"}


def config_with(**changes: Any) -> dict[str, Any]:
    """`CONFIG` with dotted keys changed, written with ``__`` for the dot."""
    config = copy.deepcopy(CONFIG)
    for key, value in changes.items():
        place = config
        *above, last = key.split("__")
        for part in above:
            place = place[part]
        place[last] = value
    return config


def facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """What every record says of its run."""
    return {
        "title": f"{config['name']} on test",
        "run": config["name"],
        "dataset": config["data"]["dataset"]["name"],
        "split": "test",
        "method": config["method"]["name"],
        "balancer": config["balancer"]["name"],
        "missing_policy": config["model"]["missing_policy"]["name"],
        "seed": config["seed"],
        "adapter": "none",
        "score": "accuracy",
        "directions": DIRECTIONS,
        "chance": 0.25,
        "chances": {"accuracy": 0.25, "ece": None},
        "classes": ["a", "b", "c", "d"],
        "selection": {"part": "validation", "metric": "mean/accuracy", "value": 0.5, "epoch": 1},
        "data": {"split": f"random, split_seed {config['data']['dataset'].get('split_seed')}", "test_samples": 40},
    }


def combination_rows(scores: Mapping[str, float], degenerate: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Rows of the protocol of all combinations; the calibration error is half of what accuracy lacks."""
    return [
        {
            "combination": name,
            "metrics": {"accuracy": score, "ece": (1 - score) / 2},
            "samples": 40,
            "excluded": 0,
            "incomplete": 0,
            "degenerate": name in degenerate,
        }
        for name, score in scores.items()
    ]


def combinations(config: Mapping[str, Any], scores: Mapping[str, float], **changes: Any) -> dict[str, Any]:
    """The record of all combinations; the last one is complete."""
    rows = combination_rows(scores)
    columns = {metric: [row["metrics"][metric] for row in rows] for metric in DIRECTIONS}
    mean = {metric: sum(values) / len(values) for metric, values in columns.items()}
    complete = {metric: values[-1] for metric, values in columns.items()}
    return {
        **facts(config),
        "combinations": list(scores),
        "rows": rows,
        "aggregates": {
            "mean": mean,
            "worst": {"accuracy": min(columns["accuracy"]), "ece": max(columns["ece"])},
            "complete": complete,
            "drop": {metric: complete[metric] - mean[metric] for metric in DIRECTIONS},
        },
        "unimodal": {"source": "masked", "rows": []},
        "degenerate": [],
        **changes,
    }


def write_run(folder: Path, config: Mapping[str, Any], protocols: Mapping[str, Any], mark: str = "DONE") -> Path:
    """A run folder with these results."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
    (folder / "results.json").write_text(json.dumps({"format": 1, "protocols": protocols}), encoding="utf-8")
    if mark:
        (folder / mark).write_text("2026\n", encoding="utf-8")
    return folder


def write_group(
    root: Path, name: str, gains: Sequence[float], *, follow_split: bool = True, record: Any = None, **changes: Any
) -> list[Path]:
    """One run per seed, in ``root/name/s<seed>``.

    Args:
        root: For all groups.
        name: Of the configuration.
        gains: Added to the scores of each seed, which differ from seed to seed by a hundredth.
        follow_split: Whether the split follows the seed.
        record: Changes of every record, by key.
        changes: Of the configuration, as in `config_with`.
    """
    made = []
    for seed, gain in enumerate(gains):
        config = config_with(name=name, seed=seed, **changes)
        if follow_split:
            config["data"]["dataset"]["split_seed"] = seed
        base = 0.6 + 0.01 * seed + gain
        scores = {"rgb": base, "depth": base - 0.1, "rgb+depth": base + 0.1}
        made_record = combinations(config, scores, **(record or {}))
        made.append(write_run(root / name / f"s{seed}", config, {"combinations": made_record}))
    return made


def reasons(root: Path, **options: Any) -> list[str]:
    """What `robustmm.report.compare.compare` refuses with."""
    import pytest  # here, since children that stand in for trainings need none of this

    from robustmm.errors import RobustmmError
    from robustmm.report.compare import CompareRequest, compare

    with pytest.raises(RobustmmError) as caught:
        compare(CompareRequest([root], **options))
    return str(caught.value).splitlines()
