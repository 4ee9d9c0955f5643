"""Results of regression as an evaluation writes them."""

from __future__ import annotations

from typing import Any

#: Mean absolute errors, one of them far too large.
ERRORS = {"rgb": 50.0, "depth": 52.0, "rgb+depth": 1234567.8}


def regression_record(errors: dict[str, float], *, nll: float | None = None, degenerate: str = "") -> dict[str, Any]:
    """The record of one quantity; RMSE is twice the error."""
    rows = [
        {
            "combination": name,
            "metrics": {"mae": error, "rmse": 2 * error, "correlation": 0.5, "nll": nll},
            "samples": 10,
            "excluded": 0,
            "incomplete": 0,
            "degenerate": name == degenerate,
        }
        for name, error in errors.items()
    ]
    values = {"mae": 40.0, "rmse": 80.0, "correlation": 0.5, "nll": nll}
    return {
        "run": "demo",
        "title": "demo on test",
        "dataset": "diabetes",
        "split": "test",
        "method": "plain",
        "balancer": "none",
        "missing_policy": "zero_feature",
        "seed": 3,
        "score": "mae",
        "directions": {"mae": "min", "rmse": "min", "correlation": "max", "nll": "min"},
        "chance": 60.0,
        "chances": {"mae": 60.0, "rmse": 75.0, "correlation": 0.0, "nll": 5.0},
        "classes": [],
        "targets": ["age"],
        "selection": {"part": "validation", "metric": "mean/mae", "value": 41.5, "epoch": 1},
        "data": {"validation": "the data set's own", "test_samples": 10},
        "rows": rows,
        "aggregates": dict.fromkeys(("mean", "worst", "complete", "drop"), values),
        "unimodal": {"source": None, "rows": []},
        "degenerate": [degenerate] if degenerate else [],
    }
