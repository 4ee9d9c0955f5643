"""The mean of the modalities' own logits."""

import pytest
import tiny_models as tiny
import torch
from robustmm_plugins.methods.late_fusion import LateFusion

from robustmm import mean_over_present


def ready(count, **options):
    torch.manual_seed(0)
    return LateFusion(tiny.blueprint(count), **options).train()


def test_mean__leaves_absent_modalities_out():
    opinions = torch.tensor([[[2.0, 0.0], [0.0, 4.0]], [[2.0, 0.0], [0.0, 0.0]]])  # (B, M, C)
    presence = torch.tensor([[True, True], [True, False]])
    assert mean_over_present(opinions, presence).tolist() == [[1.0, 2.0], [2.0, 0.0]]
    assert mean_over_present(opinions, torch.zeros(2, 2).bool()).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_logits__are_the_mean_over_heads():
    method, data = ready(2), tiny.batch(2)
    output = method(data.inputs, data.observed)
    own = [method.head.heads[name](output.features[name], ()) for name in method.modalities]
    torch.testing.assert_close(output.logits, (own[0] + own[1]) / 2)


def test_losses__add_each_modality_over_the_samples_that_show_it():
    method, data, presence = ready(2, unimodal_weight=0.5), tiny.batch(2), tiny.mixed_presence(2)
    output = method(data.inputs, presence)
    terms = method.losses(output, data, tiny.clock())
    assert list(terms) == ["task", "unimodal/rgb", "unimodal/depth"]
    rows = presence[:, 1]
    alone = torch.nn.functional.cross_entropy(output.extras["opinions"][rows, 1], data.target[rows])
    torch.testing.assert_close(terms["unimodal/depth"].value, 0.5 * alone)
    assert terms["unimodal/depth"].role == "auxiliary"


@pytest.mark.parametrize("count", [1, 3])
def test_weight_0__leaves_the_task_alone(count):
    method, data = ready(count, unimodal_weight=0.0), tiny.batch(count)
    assert list(method.losses(method(data.inputs, data.observed), data, tiny.clock())) == ["task"]
