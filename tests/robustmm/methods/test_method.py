"""The method contract as it stands."""

from dataclasses import replace

import pytest
import tiny_models as tiny
import torch

from robustmm import Method
from robustmm.masks import all_combinations


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_forward__has_the_documented_shapes(count, dense):
    method, data = Method(tiny.blueprint(count, dense=dense)), tiny.batch(count, dense=dense)
    output = method(data.inputs, data.observed, size=method.task.target_size(data.target))
    assert output.logits.shape == (8, 3, *(tiny.GRID if dense else ()))
    assert list(output.features) == list(method.modalities)
    assert len(output.fused) == (2 if dense else 1)
    assert torch.equal(output.presence, data.observed)
    assert output.extras == {}


@pytest.mark.parametrize("count", [2, 3])
def test_forward__of_a_mask_equals_re_fused_features(count):
    method, data = Method(tiny.blueprint(count)).eval(), tiny.batch(count)
    complete = method(data.inputs, data.observed)
    for combination in all_combinations(method.modalities):
        presence = tiny.shown(combination, count)
        fused = method.trunk.refuse(complete.features, presence)
        again = method.readout(complete.features, fused, presence, ()).logits
        torch.testing.assert_close(again, tiny.run_forward(method, data, presence))


def test_forward__edit_changes_what_is_fused_and_not_the_features():
    method, data = Method(tiny.blueprint(2)), tiny.batch(2)
    calls = []

    def drop_depth(level, features, presence):
        calls.append(level)
        return {**features, "depth": torch.zeros_like(features["depth"])}

    output = method(data.inputs, data.observed, drop_depth)
    assert calls == [0]
    assert not output.fused[0][:, tiny.WIDTH :].any()
    assert output.features["depth"][0].any()


def test_losses__are_the_task_loss():
    method, data = Method(tiny.blueprint(2)), tiny.batch(2)
    output = method(data.inputs, data.observed)
    terms = method.losses(output, data, tiny.clock())
    torch.testing.assert_close(
        terms["task"].value, torch.nn.functional.cross_entropy(output.logits, data.target), rtol=0, atol=0
    )


def test_defaults__have_no_state_and_deploy_themselves():
    method = Method(tiny.blueprint(2))
    method.on_epoch_end(lambda combinations: {}, tiny.clock())
    method.load_method_state({})
    assert method.method_state() == {}
    assert method.deployable() is method


def test_blueprint__gives_fresh_parts_each_time():
    blueprint = tiny.blueprint(2)
    first, second = Method(blueprint), Method(blueprint)
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}
    assert first.task is second.task


@pytest.mark.parametrize("dense", [False, True])
def test_network_of_one_modality__leaves_samples_without_it_out_of_its_loss(dense):
    torch.manual_seed(0)
    method = Method(tiny.blueprint(2, dense=dense).alone("depth"))
    data = tiny.batch(2, dense=dense)
    observed = data.observed.clone()
    observed[[1, 4], 1] = False
    own = replace(data, observed=observed).only(["depth"])
    output = method(own.inputs, own.observed, size=method.task.target_size(own.target))
    found = method.losses(output, own, tiny.clock())["task"].value
    rows = own.observed[:, 0]
    torch.testing.assert_close(found, method.task.loss(output.logits[rows], own.target[rows]))
    nothing = replace(own, observed=torch.zeros_like(own.observed))
    empty = method.losses(method(own.inputs, nothing.observed, size=tuple(own.target.shape[1:])), nothing, tiny.clock())
    assert empty["task"].value.item() == 0
