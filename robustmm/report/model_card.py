"""A run's model card: what it predicts from what, how it was trained, how well it does, and how it is used.

Every line is taken from the run's own files: model.json, config.yaml, results.json and env.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from robustmm.engine.run_folder import RunFolder
from robustmm.report.results import COMBINATIONS, read_results
from robustmm.report.tables import number, shown_metrics
from robustmm.signature import Signature, read_signature
from robustmm.types import Modality

CARD = "MODEL_CARD.md"
#: Notes of a data set that stand in a table of their own, in this order; others follow.
FIRST = ("dataset", "split", "train_samples", "validation_samples", "test_samples", "validation", "licence", "citation")
#: Facts that stand elsewhere on the card.
ELSEWHERE = ("name", "method", "balancer", "sampler", "missing_policy", "parameters")
FORMS = {"classification": "a class", "segmentation": "a class for every pixel", "regression": "numbers"}
READINGS = {
    "standardise": "standardised by the training part",
    "constants": "(value - mean) / deviation, {constants}",
    "none": "as they are",
}


def write_model_card(folder: RunFolder) -> None:
    """Write the card beside the weights.

    Raises:
        CheckpointError: the run has no signature, or no results.
    """
    signature = read_signature(folder.signature, repair="run `robustmm evaluate` on the run")
    record = read_results(folder.results)["protocols"][COMBINATIONS]
    config = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
    versions = {}
    if (folder.path / "env.json").is_file():
        versions = json.loads((folder.path / "env.json").read_text(encoding="utf-8"))
    text = model_card(signature, config, record, versions)
    (folder.checkpoints / CARD).write_text(text, encoding="utf-8")


def model_card(
    signature: Signature, config: Mapping[str, Any], record: Mapping[str, Any], environment: Mapping[str, Any]
) -> str:
    """The card as Markdown.

    Args:
        signature: What the model takes and gives.
        config: The resolved configuration.
        record: Of all combinations, as in ``results.json``.
        environment: As in ``env.json``; may be empty.
    """
    sections = (
        _head(signature),
        _inputs(signature),
        _data(signature),
        _training(signature, config, record),
        _results(record),
        _limits(record),
        _use(signature, dense="colours" in record),
        _versions(environment),
    )
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _head(signature: Signature) -> Iterator[str]:
    names = [one.name for one in signature.modalities]
    yield f"# {signature.facts['name']}"
    yield ""
    what = FORMS.get(signature.task, signature.task)
    yield f"Predicts {what} ({', '.join(signature.classes)}) from {_listed(names, 'and')}."
    if len(names) > 1:
        yield "Any of them may be missing, as long as one is there."


def _listed(names: Sequence[str], word: str) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (header, ["---"] * len(header), *rows):
        yield "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _inputs(signature: Signature) -> Iterator[str]:
    yield "## Input"
    yield ""
    rows = [
        [one.name, one.kind, " x ".join(map(str, one.shape)), one.unit or "-", _scaling(one)]
        for one in signature.modalities
    ]
    yield from _table(["modality", "kind", "shape", "unit", "values inside the model"], rows)
    yield ""
    yield "Values are given raw, in these units; the model scales them itself. Maps of another size are resized."
    for name, size in signature.sizes.items():
        yield f"Test samples of {name} had {size[0]} x {size[1]}, to which maps are brought for prediction."


def _scaling(modality: Modality) -> str:
    scaling = modality.scaling
    constants = f"means {_numbers(scaling.mean)}, deviations {_numbers(scaling.std)}"
    words = [READINGS[scaling.mode].format(constants=constants)]
    if scaling.invalid is not None:
        words.append(f"{scaling.invalid:g} means not measured")
    if modality.reading.pixels == "share":
        words.append("whole numbers of pictures are shares of their largest")
    if modality.reading.prepared:
        words.append(f"given as arrays: {modality.reading.prepared}")
    return "; ".join(words)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _data(signature: Signature) -> Iterator[str]:
    yield "## Data"
    yield ""
    facts = {key: value for key, value in signature.facts.items() if key not in ELSEWHERE}
    ordered = {key: facts[key] for key in FIRST if key in facts} | facts
    yield from _table(["fact", "value"], [[key.replace("_", " "), str(value)] for key, value in ordered.items()])


def _training(signature: Signature, config: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[str]:
    model, selection = config["model"], record["selection"]
    encoders = [f"{key} {_named(section)}" for key, section in model["encoders"].items()]
    yield "## Training"
    yield ""
    rows = [
        ["method", _named(config["method"])],
        ["balancer", _named(config["balancer"])],
        ["combinations shown in training", str(signature.facts["sampler"])],
        ["missing policy", _named(model["missing_policy"])],
        ["encoders", "; ".join(encoders) or "the default of each kind"],
        ["trunk, fusion, head", f"{_named(model['trunk'])}; {_named(model['fusion'])}; {_named(model['head'])}"],
        ["optimiser, schedule", f"{_named(config['optimizer'])}; {_named(config['schedule'])}"],
        ["epochs, batch size, seed", f"{config['train']['epochs']}, {config['data']['batch_size']}, {config['seed']}"],
        ["parameters of the deployed model", f"{signature.facts['parameters']:,}"],
        [
            "weights",
            f"of epoch {selection['epoch']}, selected by {selection['metric']} on {selection['part']} "
            f"({number(selection['value'])})",
        ],
    ]
    yield from _table(["part", "value"], rows)


def _named(section: Mapping[str, Any] | None) -> str:
    """A component with its options, as in the configuration."""
    if section is None:
        return "the task's default"
    options = ", ".join(f"{key} {value}" for key, value in section.items() if key != "name")
    return f"{section['name']} ({options})" if options else str(section["name"])


def _results(record: Mapping[str, Any]) -> Iterator[str]:
    metrics = shown_metrics(record)
    yield "## Results"
    yield ""
    yield f"On the {record['split']} part of {record['dataset']}, {record['data']['test_samples']} samples, for every"
    yield f"combination that was measured; missing policy {record['missing_policy']}."
    yield "`drop` is complete minus mean."
    yield ""
    rows = [[row["combination"], *(number(row["metrics"][metric]) for metric in metrics)] for row in record["rows"]]
    summaries = record["aggregates"].items()
    rows += [[f"**{name}**", *(number(values[metric]) for metric in metrics)] for name, values in summaries]
    yield from _table(["combination", *(f"{metric} ({_better(record, metric)})" for metric in metrics)], rows)


def _better(record: Mapping[str, Any], metric: str) -> str:
    return "higher is better" if record["directions"][metric] == "max" else "lower is better"


def _limits(record: Mapping[str, Any]) -> Iterator[str]:
    score = record["score"]
    known = [row for row in record["rows"] if row["metrics"][score] is not None]
    yield "## Limits"
    yield ""
    if known:
        pick = min if record["directions"][score] == "max" else max
        worst = pick(known, key=lambda row: row["metrics"][score])
        yield f"- Worst combination: {worst['combination']}, {score} {number(worst['metrics'][score])}."
    for name in record["degenerate"]:
        yield f"- Degenerate: {name} gives one answer for everything; do not use the model with it."
    short = [row for row in record["rows"] if row["excluded"] or row["incomplete"]]
    if short:
        yield (
            f"- The test part is incomplete: {len(short)} of {len(record['rows'])} combinations leave samples out or "
            f"predict some from fewer modalities, so their scores stand on different samples."
        )
    yield f"- Measured on {record['dataset']} alone; the scores say nothing of other data."


def _use(signature: Signature, *, dense: bool) -> Iterator[str]:
    first, *others = signature.modalities
    given = ", ".join([f'"{first.name}": {_example(first)}', *(f'"{one.name}": None' for one in others)])
    shown = "prediction.map" if dense else "prediction.values" if signature.task == "regression" else "prediction.label"
    yield "## Use"
    yield ""
    yield "`RUN` is the folder that this file's folder lies in; the data set is not needed."
    yield ""
    yield "```python"
    yield "import robustmm"
    yield ""
    yield 'predictor = robustmm.load("RUN")'
    yield f"prediction = predictor.predict({{{given}}})"
    yield f"print({shown}, prediction.uncertainty)"
    yield "```"
    yield ""
    yield "```sh"
    yield f"robustmm predict RUN --folder {first.name}=DIR -o predictions"
    yield "robustmm export RUN --format onnx"
    yield "```"


def _example(modality: Modality) -> str:
    suffix = {"image": ".png", "spectrogram": ".npy", "sequence": ".npy", "vector": ".npy"}[modality.kind]
    return f'"{modality.name}{suffix}"'


def _versions(environment: Mapping[str, Any]) -> Iterator[str]:
    yield "## Versions"
    yield ""
    known = {name: version for name, version in environment.get("versions", {}).items() if version}
    rows = [["python", str(environment["python"])]] if "python" in environment else []
    rows += [[name, version] for name, version in known.items()]
    if environment.get("commit"):
        rows.append(["commit", environment["commit"]])
    yield from _table(["package", "version"], rows)
