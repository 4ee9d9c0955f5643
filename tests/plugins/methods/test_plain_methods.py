"""`plain` and `modality_dropout`."""

import pytest
import tiny_models as tiny
import torch
from robustmm_plugins.methods import modality_dropout, plain
from robustmm_plugins.methods.dmrnet import DMRNet
from robustmm_plugins.methods.mmanet import MMANet
from robustmm_plugins.methods.modality_dropout import ModalityDropout
from robustmm_plugins.methods.plain import Plain

from robustmm import Method


def registered(module):
    found = []
    module.robustmm_register_methods(found.append)
    return found[0]


def test_plain__shows_complete_samples_and_is_the_method_as_it_stands():
    component = registered(plain)
    assert component.name == "plain"
    assert component.build.sampler == "complete"
    torch.manual_seed(0)
    ours = tiny.train_steps(component.build(tiny.blueprint(2), **dict(component.options())))
    torch.manual_seed(0)
    reference = tiny.train_steps(Method(tiny.blueprint(2)))
    assert all(torch.equal(ours[name], reference[name]) for name in reference)


def test_modality_dropout__asks_for_uniform_combinations():
    component = registered(modality_dropout)
    assert component.name == "modality_dropout"
    assert component.build.sampler == "uniform"


def test_modality_dropout__has_the_task_term_alone():
    method = registered(modality_dropout).build(tiny.blueprint(3))
    data = tiny.batch(3)
    terms = method.losses(method(data.inputs, tiny.mixed_presence(3)), data, tiny.clock())
    assert {name: term.role for name, term in terms.items()} == {"task": "task"}


class Fit:
    def train(self, name, method, *, epochs=None):
        pass


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("kind", [Plain, ModalityDropout, DMRNet, MMANet])
def test_methods__absent_modality_gets_exactly_zero_encoder_gradient(kind, dense):
    method = kind(tiny.blueprint(3, dense=dense))
    method.on_fit_start(Fit())
    data = tiny.batch(3, dense=dense)
    output = method(data.inputs, tiny.shown(("rgb", "ir"), 3), size=method.task.target_size(data.target))
    sum(term.value for term in method.losses(output, data, tiny.clock(9)).values()).backward()
    groups = method.trunk.parameter_groups()
    assert all(p.grad is None or not p.grad.any() for p in groups["depth"])
    assert all(p.grad is not None and p.grad.isfinite().all() for p in groups["rgb"] + groups["ir"])
