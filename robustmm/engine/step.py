"""One training step: the place where method, balancer and optimiser meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from robustmm import distributed
from robustmm.balancing.balancer import Balancer
from robustmm.balancing.view import StepView
from robustmm.methods.method import Method
from robustmm.types import Batch, Clock, LossTerm, Output


@dataclass
class StepContext:
    """What a step needs.

    Args:
        fabric: Device, precision, processes.
        method: On the device.
        balancer: How the optimiser sees the losses.
        optimizer: Over `parameters`, set up by Fabric.
        groups: Modality -> encoder parameters.
        clip_norm: Largest gradient norm; None does not clip.
        seed: The run's seed.
        clock: Where training stands; the loop moves it.
    """

    fabric: Fabric
    method: Method
    balancer: Balancer
    optimizer: Optimizer
    groups: Mapping[str, Sequence[nn.Parameter]]
    clip_norm: float | None
    seed: int
    clock: Clock

    def view(self, batch: Batch, output: Output) -> StepView:
        """What the balancer sees of this step."""
        return StepView(
            method=self.method,
            batch=batch,
            output=output,
            clock=self.clock,
            groups=self.groups,
            backward=self.fabric.backward,
            all_reduce=distributed.all_reduce_sum,
            seed=self.seed,
        )

    def complete_gradients(self) -> None:
        """Average gradients over processes and undo the loss scale of float16, once, before anything edits them."""
        distributed.average_gradients(self.method.parameters())
        # The scaler remembers by identity what it has unscaled, and steps Fabric's inner optimiser: through the wrapper
        # it would divide a second time.
        inner = getattr(self.optimizer, "optimizer", self.optimizer)
        self.fabric.strategy.precision.unscale_gradients(inner)

    def clip_gradients(self) -> None:
        """Bound the norm of all gradients together."""
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.method.parameters(), self.clip_norm)


def train_step(run: StepContext, batch: Batch, presence: Tensor) -> Mapping[str, LossTerm]:
    """Update the weights from one batch.

    Args:
        run: See `StepContext`.
        batch: On the device.
        presence: (B, M) bool: what the method is shown; it may lie on the CPU.

    Returns:
        The weighed loss terms of the last update, still on the device.
    """
    terms: Mapping[str, LossTerm] = {}
    for update in run.balancer.updates(presence, batch.modalities):
        run.optimizer.zero_grad(set_to_none=True)
        with run.fabric.autocast():
            size = run.method.task.target_size(batch.target)
            output = run.method(batch.inputs, update.presence, run.balancer.modulate_features, size=size)
            view = run.view(batch, output)
            terms = run.balancer.weigh(run.method.losses(output, batch, run.clock), view)
        run.balancer.backward(terms, view)
        run.complete_gradients()
        run.balancer.modulate_gradients(view)
        update.freeze_others(run.groups)
        run.clip_gradients()
        run.optimizer.step()
    return terms
