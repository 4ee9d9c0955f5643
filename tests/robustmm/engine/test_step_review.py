"""Loss scaling: gradients reach balancer and optimiser at their true size."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import tiny_models as tiny
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.precision import MixedPrecision

from robustmm import Balancer, LossTerm, StepView, total
from robustmm.engine.step import train_step


class Noting(Balancer):
    """Writes down the gradients that it may edit."""

    def modulate_gradients(self, view: StepView) -> None:
        self.seen = [p.grad.clone() for parameters in view.groups.values() for p in parameters if p.grad is not None]


class Apart(Noting):
    """Keeps what the unimodal losses ask of the encoders apart, and writes it down.

    Args:
        factor: Of those losses; a large one overflows.
    """

    factor = 1.0

    def backward(self, terms: Mapping[str, LossTerm], view: StepView) -> None:
        losses = view.shared_head_losses()
        view.backward(total(terms), retain_graph=True)
        view.backward_apart(self.factor * torch.stack(list(losses.values())).sum(), view.encoders)

    def modulate_gradients(self, view: StepView) -> None:
        self.seen = [gradient.clone() for gradient in view.apart.values()]


class Overflowing(Apart):
    """Gradients apart that no float holds, of parameters that have no other."""

    factor = 1e38

    def backward(self, terms: Mapping[str, LossTerm], view: StepView) -> None:
        super().backward(terms, view)
        for parameter in view.encoders:
            parameter.grad = None


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


@pytest.mark.parametrize("balancer", [Noting, Apart])
def test_loss_scale__is_undone_once(setup, tmp_path, scaled_fabric, balancer):
    recipe = {"make_optimizer": sgd, "clip_norm": 1.0}
    plain = setup(make_balancer=balancer, recipe=recipe).trainer(tmp_path / "plain")
    scaled = setup(make_balancer=balancer, recipe=recipe, fabric=scaled_fabric).trainer(tmp_path / "scaled")
    for trainer in (plain, scaled):
        trainer.dry_step()
    assert plain.balancer.seen
    for own, other in zip(plain.balancer.seen, scaled.balancer.seen, strict=True):
        torch.testing.assert_close(own, other)
    for name, weight in plain.method.state_dict().items():
        torch.testing.assert_close(weight, scaled.method.state_dict()[name], msg=name)


def test_loss_scale__gradients_apart_that_overflow_skip_the_step(setup, tmp_path, scaled_fabric):
    trainer = setup(make_balancer=Overflowing, recipe={"make_optimizer": sgd}, fabric=scaled_fabric).trainer(tmp_path)
    before = {name: weight.clone() for name, weight in trainer.method.named_parameters()}
    trainer.dry_step()
    assert not all(gradient.isfinite().all() for gradient in trainer.balancer.seen)
    for name, weight in trainer.method.named_parameters():
        assert torch.equal(weight, before[name]), name


def test_step__terms_come_back_without_their_graph(setup, tmp_path):
    trainer = setup(make_balancer=Apart).trainer(tmp_path)
    batch, presence = tiny.batch(3, size=4), tiny.mixed_presence(3, size=4)
    terms = train_step(trainer.context, [batch], presence)
    assert terms
    assert not any(term.value.requires_grad for term in terms.values())
