"""Trainers on a few random samples, for tests of the loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import tiny_models as tiny
import torch
from lightning.fabric import Fabric

from robustmm import ArrayDataset, Balancer, Callback, Method, Schedule, ScheduleValues
from robustmm.data.loaders import PartLoader
from robustmm.data.parts import Part
from robustmm.engine.fit import Fit
from robustmm.engine.interrupt import Interrupt
from robustmm.engine.recipe import Recipe
from robustmm.engine.train import Trainer
from robustmm.plugin_manager import get_plugins


class Notes(Callback):
    """Writes down everything that it is told, and asks for a stop after ``stop_after`` steps."""

    def __init__(self, interrupt: Interrupt | None = None, stop_after: int | None = None) -> None:
        self.interrupt, self.stop_after = interrupt, stop_after
        self.steps: list[tuple[int, int]] = []
        self.logs: list[tuple[int, dict[str, float]]] = []
        self.epochs: list[tuple[int, int, dict[str, Any]]] = []
        self.messages: list[str] = []

    def on_step(self, step: int, epoch: int) -> None:
        self.steps.append((step, epoch))
        if self.interrupt is not None and step == self.stop_after:
            self.interrupt.requested = True

    def on_log(self, step: int, record) -> None:
        self.logs.append((step, dict(record)))

    def on_epoch_end(self, epoch: int, step: int, record) -> None:
        self.epochs.append((epoch, step, dict(record)))

    def on_message(self, text: str) -> None:
        self.messages.append(text)


class Falling(Schedule):
    """Another rate at every step, so that a step counted twice or never shows."""

    def __call__(self, step: int) -> ScheduleValues:
        return ScheduleValues(1 / (1 + 0.1 * step))


def adamw(parameters) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)


def arrays(count: int, modalities: int = 3, seed: int = 0) -> ArrayDataset:
    """Random vectors; the label is how many of the first two modalities begin with a positive number."""
    data = tiny.batch(modalities, size=count, seed=seed)
    target = sum((data.inputs[name][:, 0] > 0).long() for name in tiny.NAMES[:2])
    return ArrayDataset(dict(data.inputs), target, data.ids)


def registered(kind: str, name: str, **arguments: Any) -> Any:
    """A component with its default options, but for ``arguments``."""
    component = get_plugins().registry.get(kind, name)
    options = component.options()
    defaults = {key: getattr(options, key) for key in type(options).model_fields}
    return component.build(**defaults | arguments)


@dataclass
class Setup:
    """What a trainer is made of; `Setup.trainer` makes a new one with new weights.

    Args:
        make_method: From a blueprint for three modalities.
        samples: Of the training part, in batches of 4.
    """

    make_method: Callable[[Any], Method] = Method
    make_balancer: Callable[[], Balancer] = Balancer
    sampler: str = "uniform"
    samples: int = 18
    batch_size: int = 4
    recipe: dict[str, Any] = field(default_factory=dict)
    fabric: Fabric | None = None

    def trainer(self, folder, *, seed: int = 0, stop_after: int | None = None, **options: Any) -> Trainer:
        torch.manual_seed(seed)
        parts = tiny.blueprint(3)
        interrupt = Interrupt()
        recipe = {"seed": seed, "epochs": 3, "make_optimizer": adamw, "make_schedule": Falling, "log_every": 2}
        own = Trainer(
            method=self.make_method(parts),
            balancer=self.make_balancer(),
            sampler=registered("sampler", self.sampler, modalities=tiny.NAMES[:3]),
            train=PartLoader(
                Part(arrays(self.samples), range(self.samples), augment_seed=seed),
                parts.modalities,
                batch_size=self.batch_size,
                seed=seed,
            ),
            validation=PartLoader(Part(arrays(9, seed=1), range(9)), parts.modalities, batch_size=4),
            recipe=Recipe(**recipe | self.recipe),
            fabric=self.fabric or Fabric(accelerator="cpu", devices=1),
            folder=folder,
            callbacks=[Notes(interrupt, stop_after)],
            interrupt=interrupt,
        )
        for name, value in options.items():
            setattr(own, name, value)
        return own


@pytest.fixture
def setup() -> type[Setup]:
    """The recipe of trainers."""
    return Setup


@pytest.fixture
def build_registered():
    """See `registered`."""
    return registered


@pytest.fixture
def fit():
    """Train as a run does: the method's own preparations, then the epochs."""

    def run(trainer: Trainer, *, resume: bool = False) -> Trainer:
        trainer.method.on_fit_start(Fit(trainer))
        if resume:
            trainer.load()
        trainer.fit()
        return trainer

    return run


@pytest.fixture
def same_state():
    """Assert that two trainers stand at the same place, to the bit."""

    def compare(one: Trainer, other: Trainer) -> None:
        ours, theirs = one.method.state_dict(), other.method.state_dict()
        assert list(ours) == list(theirs)
        for name, value in ours.items():
            assert torch.equal(value, theirs[name]), name
        torch.testing.assert_close(
            one.context.optimizer.state_dict(), other.context.optimizer.state_dict(), rtol=0, atol=0
        )
        assert one.method.method_state() == other.method.method_state()
        assert one.selection == other.selection
        assert one.context.clock == other.context.clock

    return compare
