"""Short runs of a method on tiny data: the epochs, the held-out part and the teacher's training, without the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from robustmm.balancing.balancer import total
from robustmm.engine.evaluate import evaluate_combinations
from robustmm.methods.method import Evaluate, Method
from robustmm.registry import Component
from robustmm.tasks.task import Metrics
from robustmm.testing.contract import build, seed_cpu
from robustmm.testing.tiny import Setting, batch, blueprint, clock, mixed_presence
from robustmm.types import Combination, LossTerm

#: Epochs of a rehearsal; longer than the warm-up of any published method with its default options.
EPOCHS = 12
LEARNING_RATE = 0.05

Watch = Callable[[Mapping[str, LossTerm]], None]


class RehearsedFit:
    """What a method may ask for before training: networks are left as they are, and kept for a resumed run."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Tensor]] = {}

    def train(self, name: str, method: Method, *, epochs: int | None = None) -> None:
        """See `robustmm.FitContext.train`."""
        if name in self.kept:
            method.load_state_dict(self.kept[name])
        self.kept[name] = {key: value.clone() for key, value in method.state_dict().items()}

    def load(self, path: str, method: Method) -> None:
        """See `robustmm.FitContext.load`."""
        self.train(path, method)


def prepare(component: Component, setting: Setting, fit: RehearsedFit | None = None) -> Method:
    """A method in training mode, ready for its first epoch."""
    method: Method = build(component, blueprint=blueprint(setting))
    method.on_fit_start(fit or RehearsedFit())
    return method.train()


def held_out(method: Method, setting: Setting) -> Evaluate:
    """Scores of a method on samples that it is not trained on."""
    device = torch.device("cpu")

    def evaluate(combinations: list[Combination]) -> Mapping[Combination, Metrics]:
        evaluation = evaluate_combinations(method, [batch(setting, seed=1000)], device, combinations=combinations)
        return {combination: tally.metrics for combination, tally in evaluation.combinations.items()}

    return evaluate


def rehearse(
    method: Method, setting: Setting, *, start: int = 0, stop: int = EPOCHS, watch: Watch = lambda terms: None
) -> None:
    """Train for some epochs of one step, all combinations in each.

    Args:
        method: From `prepare`.
        setting: As there.
        start: First epoch.
        stop: Epoch before which training stops.
        watch: Called after each backward pass.
    """
    for epoch in range(start, stop):
        seed_cpu(epoch)
        at = clock(epoch, epoch, epochs=EPOCHS, steps_per_epoch=1)
        data = batch(setting, seed=epoch)
        method.zero_grad(set_to_none=True)
        output = method.train_output(data, mixed_presence(setting.count))
        terms = method.losses(output, data, at)
        torch.autograd.backward(total(terms))
        watch(terms)
        descend(method)
        method.on_epoch_end(held_out(method, setting), at)


@torch.no_grad()
def descend(method: Method) -> None:
    """One step of plain gradient descent, which has no state to save."""
    for parameter in method.parameters():
        if parameter.grad is not None:
            parameter.sub_(parameter.grad, alpha=LEARNING_RATE)
