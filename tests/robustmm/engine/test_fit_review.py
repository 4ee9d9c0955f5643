"""Which epoch of a teacher is kept."""

from __future__ import annotations

import pytest
import torch

from robustmm import Method, Metric
from robustmm.engine.fit import Fit


class Hits(Metric):
    """Right predictions."""

    def __init__(self, classes=()) -> None:
        super().__init__(classes)
        self.right = 0

    def update(self, logits, target) -> None:
        self.right += int((logits.argmax(dim=1) == target).sum())

    def merge(self, other) -> None:
        self.right += other.right

    def compute(self) -> float:
        return float(self.right)


class Taught(Method):
    """Trains a plain teacher first."""

    def __init__(self, blueprint) -> None:
        super().__init__(blueprint)
        self.make_teacher = lambda: Method(blueprint)

    def on_fit_start(self, fit) -> None:
        fit.train("teacher", self.make_teacher())


def test_teacher__is_selected_by_a_plugins_metric(setup, tmp_path):
    own = setup(make_method=Taught, recipe={"select_metric": "mean/hits"}).trainer(
        tmp_path, extra=lambda: {"hits": Hits()}
    )
    own.method.on_fit_start(Fit(own))
    assert "teacher: complete/hits" in own.callbacks[0].messages[-1]


def test_teacher__keeps_its_best_epoch_also_where_the_run_wants_a_small_drop(setup, tmp_path, monkeypatch):
    recipe = {"select_metric": "drop/accuracy", "select_mode": "min"}
    own = setup(make_method=Taught, recipe=recipe).trainer(tmp_path)
    kept = []
    monkeypatch.setattr("robustmm.engine.train.Trainer.load_best", lambda nested: kept.append(nested.selection))
    own.method.on_fit_start(Fit(own))
    assert (kept[0].metric, kept[0].mode) == ("complete/accuracy", "max")


def test_teacher__is_scored_on_the_complete_input_alone(setup, tmp_path, monkeypatch):
    asked = []

    def noting(nested):
        asked.append(nested.combinations)
        raise InterruptedError

    monkeypatch.setattr("robustmm.engine.train.Trainer.fit", noting)
    own = setup(make_method=Taught).trainer(tmp_path)
    with pytest.raises(InterruptedError):
        own.method.on_fit_start(Fit(own))
    assert asked == [[("rgb", "depth", "ir")]]


class TaughtByOne(Method):
    """Trains a network of one modality first."""

    def __init__(self, blueprint) -> None:
        super().__init__(blueprint)
        self.teacher = [Method(blueprint.alone("depth"))]

    def on_fit_start(self, fit) -> None:
        fit.train("teacher_depth", self.teacher[0])


def taught(setup, folder, change) -> dict[str, torch.Tensor]:
    """Weights of the teacher where every third sample lacks its modality, after ``change`` of the data."""
    own = setup(make_method=TaughtByOne).trainer(folder)
    for loader in (own.train, own.validation):
        arrays = loader.part.dataset
        arrays.observed[::3, 1] = False
        change(arrays)
    own.method.on_fit_start(Fit(own))
    return own.method.teacher[0].state_dict()


def test_teacher_of_one_modality__learns_from_the_samples_that_have_it_alone(setup, tmp_path):
    def other_labels(arrays) -> None:
        arrays.target[::3] = (arrays.target[::3] + 1) % 3

    def other_inputs(arrays) -> None:
        arrays.inputs["rgb"].mul_(3)

    def other_labels_of_those_that_count(arrays) -> None:
        arrays.target[1::3] = (arrays.target[1::3] + 1) % 3

    expected = taught(setup, tmp_path / "as it is", lambda arrays: None)
    for change in (other_labels, other_inputs):
        found = taught(setup, tmp_path / change.__name__, change)
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    other = taught(setup, tmp_path / "counting", other_labels_of_those_that_count)
    assert not all(torch.equal(other[name], value) for name, value in expected.items())
