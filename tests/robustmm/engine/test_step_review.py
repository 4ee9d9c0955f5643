"""Loss scaling: gradients reach balancer and optimiser at their true size."""

from __future__ import annotations

import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.precision import MixedPrecision

from robustmm import Balancer, StepView


class Noting(Balancer):
    """Writes down the gradients that it may edit."""

    def modulate_gradients(self, view: StepView) -> None:
        self.seen = [p.grad.clone() for parameters in view.groups.values() for p in parameters if p.grad is not None]


def sgd(parameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


@pytest.fixture
def scaled_fabric() -> Fabric:
    """A scaler as for float16 on a GPU; on a CPU the forward pass is bfloat16, so it is left in float32 here."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    precision = MixedPrecision(precision="16-mixed", device="cpu", scaler=scaler)
    precision._desired_input_dtype = torch.float32
    precision.forward_context = lambda: torch.autocast("cpu", enabled=False)
    return Fabric(accelerator="cpu", devices=1, plugins=precision)


def test_loss_scale__is_undone_once(setup, tmp_path, scaled_fabric):
    recipe = {"make_optimizer": sgd, "clip_norm": 1.0}
    plain = setup(make_balancer=Noting, recipe=recipe).trainer(tmp_path / "plain")
    scaled = setup(make_balancer=Noting, recipe=recipe, fabric=scaled_fabric).trainer(tmp_path / "scaled")
    for trainer in (plain, scaled):
        trainer.dry_step()
    for own, other in zip(plain.balancer.seen, scaled.balancer.seen, strict=True):
        torch.testing.assert_close(own, other)
    for name, weight in plain.method.state_dict().items():
        torch.testing.assert_close(weight, scaled.method.state_dict()[name], msg=name)
