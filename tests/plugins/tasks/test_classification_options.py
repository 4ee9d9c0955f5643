"""Options of the classification task."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from robustmm_plugins.tasks.classification import ClassificationOptions

from robustmm.plugin_manager import get_plugins

COMPONENT = get_plugins().registry.get("task", "classification")


def test_classification__is_built_from_its_options() -> None:
    options = ClassificationOptions(label_smoothing=0.1, class_weights=(1, 3), live_class="live")
    task = COMPONENT.build(classes=("live", "attack"), **dict(options))
    assert (task.num_outputs, task.score, task.default_head) == (2, "acer", "linear")
    assert task.label_smoothing == 0.1
    assert task.class_weights.tolist() == [1, 3]


@pytest.mark.parametrize(
    "options",
    [{"label_smoothing": 1.0}, {"label_smoothing": -0.1}, {"class_weights": (1.0, -1.0)}, {"smoothing": 0.1}],
)
def test_classification__refuses_what_has_no_meaning(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ClassificationOptions.model_validate(options)
