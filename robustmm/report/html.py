"""``report.html``: one run on one page that needs no network and no other file."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from robustmm.errors import CheckpointError
from robustmm.report.embed import embed_sheet
from robustmm.report.figures import Figure, loss_figure, score_figure, size_figure, worth_figure
from robustmm.report.results import COMBINATIONS, adapted_records, read_results
from robustmm.report.sheet import SHEET
from robustmm.report.summaries import (
    changes,
    class_scores,
    counted_rows,
    members,
    modalities_of,
    name_worst,
    remarks,
    spread_by_size,
    worth_of_modalities,
)
from robustmm.report.tables import FULL_TABLE, digits, shown_metrics

#: Scores whose names are written in a way of their own.
SPELLED = {"iou": "IoU", "miou": "mIoU", "mae": "MAE", "rmse": "RMSE", "nll": "NLL"}
SPELLED_WORD = re.compile(rf"\b({'|'.join(SPELLED)})\b")
#: Of templates and style sheet.
HOME = Path(__file__).parent

UNIMODAL_SOURCES = {
    "split": "The own prediction is the modality's exact share of the fused logits while all the others are present: "
    "the fused logits are the sum of these shares.",
    "masked": "The own prediction is the fused model's with every other modality hidden after encoding, since its "
    "logits cannot be split into shares.",
}
#: What follows the words on shares where quantities are predicted.
SHARE_OF_QUANTITY = " A share of a quantity is a part of it, so its errors say less than its correlation."


def write_report(folder: Path) -> Path:
    """Write ``report.html`` of a run.

    Read are ``results.json``, which must be there, and ``metrics.jsonl``, ``config.yaml`` and ``env.json``, without
    which their sections say so.

    Args:
        folder: Of the run.

    Returns:
        The page.

    Raises:
        CheckpointError: there are no results, or not those of all combinations.
    """
    path = folder / "report.html"
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(_render(_content(folder)), encoding="utf-8")
    os.replace(temporary, path)
    return path


def _protocols(folder: Path) -> dict[str, Any]:
    """Every protocol's record; that of all combinations is among them."""
    path = folder / "results.json"
    protocols: dict[str, Any] = read_results(path).get("protocols", {})
    if COMBINATIONS not in protocols:
        raise CheckpointError(
            f"{path} has no protocol '{COMBINATIONS}' (it has {', '.join(protocols) or 'none'}); "
            f"run `robustmm evaluate {folder}` first"
        )
    return protocols


def _content(folder: Path) -> dict[str, Any]:
    """Everything that the template shows."""
    protocols, lines = _protocols(folder), _lines(folder / "metrics.jsonl")
    record = protocols[COMBINATIONS]
    environment = json.loads(_text(folder / "env.json") or "{}")
    rows, score = record["rows"], record["score"]
    metrics = shown_metrics(record)
    worths = worth_of_modalities(record, score)
    spreads = spread_by_size(counted_rows(record), score) if len(rows) > FULL_TABLE else []
    status = next((line["status"] for line in reversed(lines) if line["kind"] == "end"), None)
    return {
        "record": record,
        "modalities": modalities_of(rows),
        "metrics": metrics,
        "scales": {metric: _scale(record, metric) for metric in metrics},
        "rows": [{**row, "present": _presence(row, modalities_of(rows))} for row in rows],
        "cards": _cards(record),
        "adapted": [
            {"record": one, "changes": changes(one, record), "options": _flat(one["adapter_options"])}
            for one in adapted_records(protocols)
        ],
        "remarks": remarks(record, status=status, commit=environment.get("commit")),
        "spreads": spreads,
        "size_figure": size_figure(rows, spreads, score) if spreads else None,
        "worths": worths,
        "worth_figure": worth_figure(worths, score) if len(worths) > 1 else None,
        "sheet": embed_sheet(folder / SHEET),
        "class_scores": class_scores(record),
        "swatches": _swatches(record),
        "own_source": _own_source(record),
        "training_figures": _training_figures(lines, record),
        "messages": [line["text"] for line in lines if line["kind"] == "message"],
        "config": _text(folder / "config.yaml"),
        "environment": _flat(environment),
        "folder": folder.name,
    }


def _own_source(record: Mapping[str, Any]) -> str:
    """What a modality's own prediction is, in words; empty where there is none."""
    source = record["unimodal"]["source"] or ""
    more = SHARE_OF_QUANTITY if source == "split" and "targets" in record else ""
    return UNIMODAL_SOURCES.get(source, "") + more


def _swatches(record: Mapping[str, Any]) -> list[str]:
    """Each class's colour as the style sheet wants it; empty where classes have none."""
    return ["#{:02x}{:02x}{:02x}".format(*colour) for colour in record.get("colours", ())]


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _lines(path: Path) -> list[dict[str, Any]]:
    """Records of ``metrics.jsonl``, without a line that was cut while being written."""
    found = []
    for line in (_text(path) or "").splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def _scale(record: Mapping[str, Any], metric: str) -> float:
    """What a full bar stands for: 1 where every value lies within 0 and 1, else the largest value.

    Errors of quantities have a unit, so that 1 means nothing there: always the largest value.
    """
    values = [row["metrics"][metric] for row in record["rows"] if row["metrics"][metric] is not None]
    largest = float(max(values, default=1.0))
    if "targets" in record and record["directions"][metric] == "min":
        return largest if largest > 0 else 1.0
    return max(largest, 1.0)


def _presence(row: Mapping[str, Any], modalities: Sequence[str]) -> list[bool]:
    return [name in members(row) for name in modalities]


def _cards(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The four headline numbers."""
    score, rows = record["score"], record["rows"]
    better = "more" if record["directions"][score] == "max" else "less"
    complete = max((row["combination"] for row in rows), key=lambda name: name.count("+"))
    count = complete.count("+") + 1
    notes = {
        "mean": f"over {len(rows)} combinations; {better} is better",
        "worst": name_worst(record, score),
        "complete": f"all {count} modalities" if count > 1 else complete,
        "drop": "complete minus mean",
    }
    return [
        {"name": name, "value": record["aggregates"][name][score], "note": note, "id": f"card-{name}"}
        for name, note in notes.items()
    ]


def _training_figures(lines: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> list[Figure]:
    logs = [line for line in lines if line["kind"] == "log"]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    drawn = [loss_figure(logs), score_figure(epochs, record["score"], record["selection"])]
    return [figure for figure in drawn if figure is not None]


def _flat(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and text of each fact; nested facts follow the name of their group."""
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += [(f"{name}: {inner}", text) for inner, text in _flat(value)]
        elif isinstance(value, list):
            found.append((name, ", ".join(map(str, value)) or "none"))
        else:
            found.append((name, "–" if value is None else str(value)))
    return found


def _render(content: Mapping[str, Any]) -> str:
    style = Markup((HOME / "report.css").read_text(encoding="utf-8"))
    return _environment().get_template("report.html.jinja").render(style=style, **content)


@cache
def _environment() -> Environment:
    """Compiled templates; a sweep writes many pages."""
    environment = Environment(
        loader=FileSystemLoader(HOME),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _number,
        "signed": _signed,
        "share": _share,
        "words": _words,
        "headline": _headline,
        "flat": _flat,
    }
    return environment


def _number(value: float | None) -> str:
    """As `robustmm.report.tables.digits` has it, or a dash where there is no value."""
    return "–" if value is None or not math.isfinite(value) else digits(value)


def _signed(value: float | None) -> str:
    """As `_number`, with a sign in front."""
    return "–" if value is None or not math.isfinite(value) else digits(value, "+").replace("-", "−")


def _share(value: float | None, scale: float) -> str:
    """Length of a bar in percent."""
    return f"{100 * min(max((value or 0.0) / scale, 0.0), 1.0):.1f}%"


def _words(name: str) -> str:
    """``macro_accuracy`` -> ``macro accuracy``, ``mean/miou`` -> ``mean/mIoU``."""
    return SPELLED_WORD.sub(lambda found: SPELLED[found[0]], name.replace("_", " "))


def _headline(text: str) -> str:
    """With a large first letter, unless the first word has a spelling of its own."""
    return text if text.startswith(tuple(SPELLED.values())) else text[:1].upper() + text[1:]
