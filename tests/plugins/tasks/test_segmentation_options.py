"""Options of the segmentation task."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from robustmm_plugins.tasks.segmentation import SegmentationOptions

from robustmm.config.load import config_from_mapping
from robustmm.errors import ConfigError
from robustmm.plugin_manager import get_plugins

COMPONENT = get_plugins().registry.get("task", "segmentation")


def test_segmentation__is_built_from_its_options() -> None:
    options = SegmentationOptions(class_weights=(1, 3), label_smoothing=0.1, dice_weight=0.5, foreground="road")
    task = COMPONENT.build(classes=("rest", "road"), **dict(options))
    assert (task.num_outputs, task.score, task.dense, task.needs_targets) == (2, "iou", True, False)
    assert task.class_weights.tolist() == [1, 3]
    assert (task.label_smoothing, task.dice_weight) == (0.1, 0.5)


@pytest.mark.parametrize("weighting", ["median_frequency", "log"])
def test_segmentation__weights_by_name_need_the_targets(weighting: str) -> None:
    options = SegmentationOptions.model_validate({"class_weights": weighting})
    assert COMPONENT.build(classes=("rest", "road"), **dict(options)).needs_targets


@pytest.mark.parametrize(
    "options",
    [{"label_smoothing": 1.0}, {"dice_weight": -1.0}, {"class_weights": (1.0, -1.0)}, {"void": 255}],
)
def test_segmentation__refuses_what_has_no_meaning(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SegmentationOptions.model_validate(options)


def test_segmentation__a_weighting_that_is_misspelt_gets_a_suggestion() -> None:
    config = {
        "data": {"dataset": "synthetic"},
        "task": {"name": "segmentation", "class_weights": "medain_frequency"},
        "method": "plain",
        "optimizer": "adamw",
        "train": {"epochs": 1},
    }
    with pytest.raises(ConfigError) as caught:
        config_from_mapping(config, get_plugins().registry)
    assert str(caught.value) == (
        "task.class_weights: expected median_frequency or log or a list of numbers, got 'medain_frequency' - did you "
        "mean 'median_frequency'?"
    )
