"""The result file: every protocol's rows, with what is needed to read them."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustmm.engine.scores import Summary
from robustmm.errors import CheckpointError

FORMAT = 1
#: The protocol of the model as it was trained, on every combination.
COMBINATIONS = "combinations"


def protocol_record(summary: Summary, unimodal_source: str | None, facts: Mapping[str, Any]) -> dict[str, Any]:
    """One protocol's results as JSON values.

    Args:
        summary: Scores.
        unimodal_source: Where unimodal logits come from.
        facts: Split, missing policy, method and the like; they stand in every CSV row too.
    """
    return {
        **facts,
        "rows": summary.rows,
        "aggregates": summary.aggregates,
        "unimodal": {"source": unimodal_source, "rows": summary.unimodal},
        "degenerate": [row["combination"] for row in summary.rows if row["degenerate"]],
    }


def write_protocol(folder: Path, protocol: str, record: Mapping[str, Any], *, row_facts: Mapping[str, Any]) -> None:
    """Write ``eval/<protocol>.json`` and ``.csv``, and put the record into ``results.json`` beside other protocols'."""
    (folder / "eval").mkdir(parents=True, exist_ok=True)
    _write_json(folder / "eval" / f"{protocol}.json", record)
    _write_csv(folder / "eval" / f"{protocol}.csv", record["rows"], row_facts)
    path = folder / "results.json"
    results: dict[str, Any] = {"format": FORMAT, "protocols": {}}
    if path.is_file():
        results = read_results(path)
    else:
        results["protocols"] = _apart(folder / "eval")
    results["protocols"][protocol] = record
    _write_json(path, results)


def _apart(folder: Path) -> dict[str, Any]:
    """The protocols' own files, where someone has deleted the one that holds all."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("[!.]*.json"))}


def adapted_protocol(protocol: str, adapter: str) -> str:
    """The name of a protocol that is measured with an adapter; it stands beside the one without."""
    return f"{protocol}-{adapter}"


def adapted_records(protocols: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The records of all combinations with an adapter, of each adapter one, by name."""
    return [protocols[name] for name in sorted(protocols) if name.startswith(adapted_protocol(COMBINATIONS, ""))]


def read_results(path: Path) -> dict[str, Any]:
    """Read ``results.json``.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}; run `robustmm evaluate` on the run") from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(results, dict) or not isinstance(results.get("protocols"), dict):
        raise _damaged(path, "it has no protocols")
    return results


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: {why}; delete it and run `robustmm evaluate` on the run again")


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(_plain(value), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _plain(value: Any) -> Any:
    """NaN and infinities become None: they are not JSON, and a reader must not take them for numbers."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _single(row: Mapping[str, Any]) -> dict[str, Any]:
    """What fits into one cell each; nested mappings of numbers get a column per number."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        if key == "realised":
            found |= {f"{key}/{name}": number for name, number in value.items()}
        elif not isinstance(value, Mapping | list):
            found[key] = value
    return found


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> None:
    flat = [_plain({**facts, **_single(row), **row["metrics"]}) for row in rows]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(flat[0]))
        writer.writeheader()
        writer.writerows(flat)
