"""Options of the regression task."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from robustmm_plugins.tasks.regression import RegressionOptions

from robustmm.config.load import config_from_mapping
from robustmm.errors import ConfigError
from robustmm.plugin_manager import get_plugins

COMPONENT = get_plugins().registry.get("task", "regression")


def test_regression__is_built_from_its_options() -> None:
    task = COMPONENT.build(classes=("age",), **dict(RegressionOptions(loss="huber", huber_delta=0.3)))
    assert (task.num_outputs, task.form, task.huber_delta) == (1, "huber", 0.3)


@pytest.mark.parametrize("options", [{"loss": "crps"}, {"huber_delta": 0.0}, {"live_class": "a"}])
def test_regression__refuses_what_has_no_meaning(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RegressionOptions.model_validate(options)


@pytest.mark.parametrize("part", [{"balancer": "ogm_ge"}, {"method": "mmanet"}, {"evaluation": {"metrics": ["brier"]}}])
def test_regression__is_refused_by_what_needs_class_probabilities(part: dict[str, Any]) -> None:
    config = {
        "data": {"dataset": "diabetes", "batch_size": 8},
        "task": "regression",
        "method": "plain",
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "train": {"epochs": 1},
        **part,
    }
    with pytest.raises(ConfigError, match="class_probability"):
        config_from_mapping(config, get_plugins().registry)
