"""One model for every combination against one model per combination: the plan, and the record of the protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from robustmm.config.load import load_config
from robustmm.config.render import to_yaml
from robustmm.config.schema import RunConfig
from robustmm.engine.run_folder import RunFolder
from robustmm.errors import CheckpointError, ConfigError, RobustmmError
from robustmm.masks import combination_name, parse_combination
from robustmm.registry import Registry
from robustmm.report.measures import mean_or_none
from robustmm.report.results import COMBINATIONS, read_results
from robustmm.report.runs import flat

#: Name of the protocol, and of the folder below the run's.
CUSTOMISED = "customised"
#: Parts of a row: the run's own score, that of the model for the combination alone, and how much more that is.
PARTS = ("unified", "customised", "difference")
#: What the record has of the unified run's.
FACTS = (
    *("run", "dataset", "split", "method", "balancer", "missing_policy", "seed", "adapter", "modalities"),
    *("score", "directions", "chance", "chances", "classes", "targets", "selection", "data", "fingerprint"),
)
#: Summaries of a selection score that are a score of the only combination as well.
KEPT_AGGREGATES = ("mean", "worst", "complete")


@dataclass(frozen=True)
class CustomiseRequest:
    """What the user asked for.

    Args:
        run: A finished run, the unified model.
        combinations: To train a model for; empty means all that the run was measured on.
        method: Of the customised models.
        balancer: Of the customised models.
        overrides: On top, such as another carrier of a trunk.
    """

    run: Path
    combinations: Sequence[str] = ()
    method: str = "plain"
    balancer: str = "none"
    overrides: Sequence[str] = ()


@dataclass(frozen=True)
class Customised:
    """A model for one combination.

    Args:
        combination: In column order, such as ``rgb+depth``.
        folder: Its run's.
        overrides: Of the unified run's configuration.
        config: As it is to be trained.
    """

    combination: str
    folder: Path
    overrides: tuple[str, ...]
    config: RunConfig


def plan_customised(request: CustomiseRequest, registry: Registry) -> list[Customised]:
    """A model per combination, each configuration checked.

    Raises:
        CheckpointError: the run did not finish, or a folder holds a model of another configuration.
        ConfigError: everything that is wrong in any configuration.
    """
    folder = RunFolder(request.run)
    folder.require()
    if not folder.done:
        raise CheckpointError(f"{request.run} did not finish; its model cannot be held against others")
    base = load_config([folder.config], (), registry).config
    record = _record(request.run)
    planned, problems = [], list[str]()
    for name in _combinations(request, record):
        overrides = (*_overrides(base, name, request), *request.overrides)
        try:
            config = load_config([folder.config], overrides, registry).config
        except ConfigError as error:
            problems += error.problems
            continue
        planned.append(Customised(name, request.run / CUSTOMISED / name, overrides, config))
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    others = [line for one in planned for line in _changes(one)]
    if others:
        raise CheckpointError("\n".join(others))
    return planned


def _record(run: Path) -> Mapping[str, Any]:
    protocols = read_results(run / "results.json")["protocols"]
    if COMBINATIONS not in protocols:
        raise CheckpointError(f"{run} has no results of protocol '{COMBINATIONS}'; run `robustmm evaluate {run}`")
    record: Mapping[str, Any] = protocols[COMBINATIONS]
    return record


def _combinations(request: CustomiseRequest, record: Mapping[str, Any]) -> list[str]:
    """Those that were asked for, in column order."""
    measured = [str(row["combination"]) for row in record["rows"]]
    modalities = list(dict.fromkeys(name for row in reversed(measured) for name in row.split("+")))
    wanted = [combination_name(parse_combination(text, modalities)) for text in request.combinations] or measured
    lacking = [name for name in wanted if name not in measured]
    if lacking:
        raise RobustmmError(
            f"{request.run} was not measured on {', '.join(lacking)} (but on {', '.join(measured)}); leave "
            f"{'these' if len(lacking) > 1 else 'it'} out, or evaluate the run on more combinations"
        )
    return list(dict.fromkeys(wanted))


def _overrides(base: RunConfig, combination: str, request: CustomiseRequest) -> Iterator[str]:
    """The same recipe for one combination, which every sample shows in full."""
    aggregate, slash, metric = base.train.select.metric.partition("/")
    if aggregate not in KEPT_AGGREGATES:
        aggregate = "mean"
    yield f"name={base.name}_{combination}"
    yield f"data.modalities=[{', '.join(combination.split('+'))}]"
    yield f"method={request.method}"
    yield f"balancer={request.balancer}"
    yield "sampler=null"
    yield f"train.select.metric={aggregate}{slash}{metric}"
    yield f"evaluation.combinations=[{combination}]"
    yield "evaluation.protocols=[combinations]"
    yield "evaluation.adapter=null"
    yield "evaluation.unimodal=false"
    yield "evaluation.pictures=0"


def _changes(planned: Customised) -> Iterator[str]:
    """What a model that is there already was trained with otherwise."""
    path = RunFolder(planned.folder).config
    if path.is_file():
        before, now = (
            dict(flat(yaml.safe_load(text))) for text in (path.read_text(encoding="utf-8"), to_yaml(planned.config))
        )
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        if keys:
            told = ", ".join(f"{key}: {before.get(key, 'nothing')}, now {now.get(key, 'nothing')}" for key in keys[:3])
            yield f"{planned.folder} was trained with another configuration ({told}); delete it to train it again"


def customised_record(request: CustomiseRequest, planned: Sequence[Customised]) -> dict[str, Any]:
    """The record of the protocol ``customised``, when every model is done.

    Raises:
        CheckpointError: a model was tested on other samples than the run.
    """
    record = _record(request.run)
    pairs = [(one, _record(one.folder)) for one in planned]
    problems = [line for one, own in pairs for line in _other_test_part(one, own, record)]
    if problems:
        raise CheckpointError("\n".join(problems))
    by_name = {row["combination"]: row for row in record["rows"]}
    rows = [_row(request.run, one, by_name[one.combination], own["rows"][0]) for one, own in pairs]
    return {
        "title": f"{record['run']}: one model for all, and one {request.method} model for each combination, on test",
        **{key: record[key] for key in FACTS if key in record},
        "combinations": [one.combination for one in planned],
        "customised": {"method": request.method, "balancer": request.balancer, "overrides": list(request.overrides)},
        "rows": rows,
        "means": {
            part: {metric: mean_or_none([row[part][metric] for row in rows]) for metric in rows[0][part]}
            for part in PARTS
        },
        "degenerate": [row["combination"] for row in rows if row["degenerate"]],
    }


def _other_test_part(one: Customised, own: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[str]:
    """Facts of the test part that are not those of the unified run."""
    facts = {key: value for key, value in record["data"].items() if "test" in key or "split" in key}
    for key, value in {"dataset": record["dataset"], **facts}.items():
        mine = own["dataset"] if key == "dataset" else own["data"].get(key)
        if mine != value:
            yield f"{one.combination}: '{key}' of the data is {value} for the run and {mine} for {one.folder}"
    row = next(row for row in record["rows"] if row["combination"] == one.combination)
    for key in ("samples", "excluded"):
        if row[key] != own["rows"][0][key]:
            said, mine = "scored" if key == "samples" else key, own["rows"][0][key]
            yield f"{one.combination}: {row[key]} test samples are {said} for the run, {mine} for {one.folder}"


def _row(run: Path, one: Customised, unified: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    metrics = [name for name in unified["metrics"] if name in own["metrics"]]
    scores = {
        "unified": {name: unified["metrics"][name] for name in metrics},
        "customised": {name: own["metrics"][name] for name in metrics},
    }
    scores["difference"] = {name: _difference(scores["customised"][name], scores["unified"][name]) for name in metrics}
    return {
        "combination": one.combination,
        **scores,
        "metrics": {f"{part}/{name}": scores[part][name] for name in metrics for part in PARTS},
        "run": str(one.folder.relative_to(run)),
        "samples": own["samples"],
        "excluded": own["excluded"],
        "degenerate": unified["degenerate"] or own["degenerate"],
    }


def _difference(own: float | None, unified: float | None) -> float | None:
    return None if own is None or unified is None else own - unified
