"""Scores of several draws at one place, as mean and deviation."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def curves(rows: Sequence[Mapping[str, Any]], by: Sequence[str]) -> list[dict[str, Any]]:
    """One point per place, in the order of the rows.

    Args:
        rows: Each with ``metrics`` and the keys of ``by``.
        by: What makes a place.

    Returns:
        Points with the keys of ``by``, ``draws`` and ``metrics``: metric -> mean and sd, see `spread_of`.
    """
    places: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        places.setdefault(tuple(row[key] for key in by), []).append(row)
    return [
        {
            **dict(zip(by, place, strict=True)),
            "draws": len(group),
            "metrics": {name: spread_of([row["metrics"][name] for row in group]) for name in group[0]["metrics"]},
        }
        for place, group in places.items()
    ]


def spread_of(values: Sequence[float | None]) -> dict[str, float | None]:
    """Mean and sample deviation; None where a value is None, no deviation of a single one."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return {"mean": None, "sd": None}
    return {"mean": statistics.fmean(known), "sd": statistics.stdev(known) if len(known) > 1 else None}
