"""UME: the mean of probabilities, and training at once that equals training apart."""

import pytest
import tiny_models as tiny
import torch
from robustmm_plugins.methods.ume import UME, log_mean_probability

from robustmm import Batch, Method, RegressionTask, mean_over_present

LOGITS = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])


def ready(count, *, task=None, dense=False, **options):
    torch.manual_seed(0)
    return UME(tiny.blueprint(count, task=task, dense=dense), **options).train()


def test_average__of_probabilities_or_of_logits_is_as_configured():
    both = torch.ones(1, 2).bool()
    probability = ready(2).combine(LOGITS, both).softmax(dim=1)
    torch.testing.assert_close(probability, torch.tensor([[0.4995, 0.3413, 0.1592]]), rtol=0, atol=5e-5)
    logit = ready(2, average="logit").combine(LOGITS, both)
    assert logit.tolist() == [[1.0, 0.5, 0.0]]
    torch.testing.assert_close(logit.softmax(dim=1), torch.tensor([[0.5065, 0.3072, 0.1863]]), rtol=0, atol=5e-5)


def test_one_present__is_that_network_alone():
    found = log_mean_probability(LOGITS, torch.tensor([[False, True]])).softmax(dim=1)
    torch.testing.assert_close(found, LOGITS[:, 1].softmax(dim=1))


def test_identical_networks__equal_one_of_them():
    same = LOGITS[:, :1].expand(-1, 3, -1)
    found = log_mean_probability(same, torch.ones(1, 3).bool())
    torch.testing.assert_close(found, LOGITS[:, 0].log_softmax(dim=1))


def test_nothing_present__is_uniform_with_a_finite_gradient():
    opinions = torch.zeros(1, 2, 3, requires_grad=True)
    found = log_mean_probability(opinions, torch.zeros(1, 2).bool())
    torch.testing.assert_close(found.exp(), torch.full((1, 3), 1 / 3))
    found[0, 0].backward()
    assert opinions.grad.isfinite().all()


@pytest.mark.parametrize("dense", [False, True])
def test_training_at_once__equals_training_apart(dense):
    method = ready(2, dense=dense)
    apart = {name: Method(tiny.blueprint(2, dense=dense).alone(name)).train() for name in method.modalities}
    for name, single in apart.items():
        single.trunk.encoders[name].load_state_dict(method.trunk.encoders[name].state_dict())
        single.head.load_state_dict(method.head.heads[name].state_dict())
    everything = [method, *apart.values()]
    optimizers = [torch.optim.SGD(one.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01) for one in everything]
    for step in range(3):
        data = tiny.batch(2, dense=dense, seed=step)
        for one, optimizer in zip(everything, optimizers, strict=True):
            optimizer.zero_grad()
            own = Batch(
                {name: data.inputs[name] for name in one.modalities},
                data.observed[:, : len(one.modalities)],
                data.target,
                data.ids,
                data.index,
            )
            output = one(own.inputs, own.observed, size=one.task.target_size(own.target))
            sum(term.value for term in one.losses(output, own, tiny.clock()).values()).backward()
            optimizer.step()
    for name, single in apart.items():
        expected = single.trunk.encoders[name].state_dict()
        for key, value in method.trunk.encoders[name].state_dict().items():
            torch.testing.assert_close(value, expected[key])
        for key, value in method.head.heads[name].state_dict().items():
            torch.testing.assert_close(value, single.head.state_dict()[key])


def test_losses__are_those_of_the_networks_over_the_samples_that_show_their_modality():
    method, data, presence = ready(2), tiny.batch(2), tiny.mixed_presence(2)
    output = method(data.inputs, presence)
    terms = method.losses(output, data, tiny.clock())
    assert list(terms) == ["unimodal/rgb", "unimodal/depth"]
    assert {term.role for term in terms.values()} == {"task"}
    rows = presence[:, 0]
    alone = torch.nn.functional.cross_entropy(output.extras["opinions"][rows, 0], data.target[rows])
    torch.testing.assert_close(terms["unimodal/rgb"].value, alone)


def test_regression__averages_predictions():
    task = RegressionTask(["y"])
    method, data = ready(2, task=task), tiny.batch(2)
    output = method(data.inputs, tiny.mixed_presence(2))
    expected = mean_over_present(output.extras["opinions"], output.presence)
    assert torch.equal(output.logits, expected)


def test_mixed_precision__averages_in_float32():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = ready(2)(tiny.batch(2).inputs, tiny.mixed_presence(2))
    assert output.extras["opinions"].dtype == torch.bfloat16
    assert output.logits.dtype == torch.float32
    torch.testing.assert_close(output.logits.exp().sum(dim=1), torch.ones(8))
