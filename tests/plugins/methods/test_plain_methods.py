"""`plain` and `modality_dropout`."""

import tiny_models as tiny
import torch
from robustmm_plugins.methods import modality_dropout, plain

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


def test_method__absent_modality_gets_exactly_zero_encoder_gradient():
    method = registered(modality_dropout).build(tiny.blueprint(3))
    data = tiny.batch(3)
    presence = torch.tensor([[True, False, True]]).expand(8, -1)
    method.losses(method(data.inputs, presence), data, tiny.clock())["task"].value.backward()
    groups = method.trunk.parameter_groups()
    assert all(p.grad is None or not p.grad.any() for p in groups["depth"])
    assert all(p.grad is not None and p.grad.isfinite().all() for p in groups["rgb"] + groups["ir"])
