"""What a run folder says of the run, read once for its page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from robustmm.errors import CheckpointError
from robustmm.report.measures import full_scale
from robustmm.report.results import COMBINATIONS, read_results
from robustmm.report.summaries import modalities_of
from robustmm.report.tables import shown_metrics

Record = Mapping[str, Any]


@dataclass(frozen=True)
class RunFiles:
    """A run's results and what stands beside them.

    Args:
        folder: Of the run.
        protocols: Name -> record; that of all combinations is among them.
        lines: Of ``metrics.jsonl``; empty where there is none.
        config: The resolved configuration as text; None where there is none.
        environment: Of ``env.json``; empty where there is none.
    """

    folder: Path
    protocols: Mapping[str, Record]
    lines: tuple[Record, ...] = ()
    config: str | None = None
    environment: Mapping[str, Any] | None = None

    @property
    def record(self) -> Record:
        """Of all combinations."""
        return self.protocols[COMBINATIONS]

    @property
    def score(self) -> str:
        """The main score."""
        return str(self.record["score"])

    @property
    def rising(self) -> bool:
        """Whether more of the main score is better."""
        return bool(self.record["directions"][self.score] == "max")

    @cached_property
    def modalities(self) -> tuple[str, ...]:
        """In the order of the complete combination."""
        return modalities_of(self.record["rows"])

    @cached_property
    def metrics(self) -> list[str]:
        """Scores that are shown, the main one first."""
        return shown_metrics(self.record)

    @cached_property
    def scales(self) -> dict[str, float]:
        """What a full bar of each score stands for."""
        return {metric: _scale(self.record, metric) for metric in self.metrics}

    @cached_property
    def epochs(self) -> list[Record]:
        """Validation scores by epoch."""
        return [line for line in self.lines if line["kind"] == "epoch"]


def read_run_files(folder: Path) -> RunFiles:
    """Read ``results.json``, which must be there, and ``metrics.jsonl``, ``config.yaml`` and ``env.json``.

    Raises:
        CheckpointError: there are no results, or not those of all combinations.
    """
    path = folder / "results.json"
    protocols: dict[str, Any] = read_results(path)["protocols"]
    if COMBINATIONS not in protocols:
        raise CheckpointError(
            f"{path} has no protocol '{COMBINATIONS}' (it has {', '.join(protocols) or 'none'}); "
            f"run `robustmm evaluate {folder}` first"
        )
    environment = json.loads(_text(folder / "env.json") or "{}")
    return RunFiles(
        folder, protocols, tuple(_lines(folder / "metrics.jsonl")), _text(folder / "config.yaml"), environment
    )


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


def _scale(record: Record, metric: str) -> float:
    values = [row["metrics"][metric] for row in record["rows"] if row["metrics"][metric] is not None]
    return full_scale(record, metric, values)
