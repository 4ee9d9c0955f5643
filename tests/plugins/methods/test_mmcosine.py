"""MMCosine: the released code's values and gradients, the worked example, absent modalities."""

import json
from pathlib import Path

import pytest
import tiny_models as tiny
import torch
from robustmm_plugins.heads.cosine import Cosine
from robustmm_plugins.methods.mmcosine import MMCosine
from torch import nn

from robustmm import Blueprint, Encoder, LateTrunk, MissingPolicy, Modality, Scaling
from robustmm.config.load import load_config
from robustmm.errors import ConfigError
from robustmm.models.fusion import NoFusion
from robustmm.plugin_manager import get_plugins

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "mmcosine.json").read_text())
CONFIG = """\
data: {dataset: {name: synthetic, samples: 16, modalities: 3}}
model: {encoders: {vector: {name: mlp, hidden: [4]}}, HEAD}
method: mmcosine
optimizer: adamw
train: {epochs: 1}
"""


def on_features(widths, num_outputs, scale):
    """The method on features themselves: encoders that change nothing."""
    modalities = tuple(Modality(name, "vector", (width,), Scaling("none")) for name, width in widths.items())
    encoders = {name: Encoder(nn.ModuleList([nn.Identity()]), (width,), (0,)) for name, width in widths.items()}

    def make_trunk(*, only=None, fused=True):
        return LateTrunk(modalities, encoders, NoFusion(), MissingPolicy())

    task = tiny.TinyTask(classes=num_outputs)
    parts = Blueprint(modalities, task, make_trunk, lambda channels: Cosine(channels, num_outputs, scale))
    return MMCosine(parts)


@torch.no_grad()
def set_weights(method, **weights):
    for name, weight in weights.items():
        method.head.heads[name].classify.weight.copy_(torch.as_tensor(weight))


@pytest.mark.parametrize("case", ["concat", "concat_small_scale"])
def test_method__equals_the_released_code_with_its_gradients(case):
    golden = GOLDEN[case]
    weight = torch.tensor(golden["parameters"]["fusion_module.fc_out.weight"])
    method = on_features({"audio": 3, "visual": 3}, len(weight), golden["scaling"])
    set_weights(method, audio=weight[:, :3], visual=weight[:, 3:])
    inputs = {name: torch.tensor(golden[name], requires_grad=True) for name in ("audio", "visual")}
    output = method(inputs, torch.ones(4, 2).bool())
    loss = method.task.loss(output.logits, torch.tensor(golden["label"]))
    loss.backward()
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(output.logits, torch.tensor(golden["logits"]["fused"]), **close)
    torch.testing.assert_close(output.extras["opinions"][:, 1], torch.tensor(golden["logits"]["visual"]), **close)
    assert loss.item() == pytest.approx(golden["loss"], rel=1e-5)
    for name, value in inputs.items():
        torch.testing.assert_close(value.grad, torch.tensor(golden["input_gradient"][name]), **close)
    expected = torch.tensor(golden["gradient"]["fusion_module.fc_out.weight"]).split(3, dim=1)
    for head, gradient in zip(method.head.heads.values(), expected, strict=True):
        torch.testing.assert_close(head.classify.weight.grad, gradient, **close)


def worked_example():
    method = on_features({"audio": 2, "visual": 2}, 2, 10.0)
    set_weights(method, audio=[[1.0, 0.0], [0.0, 2.0]], visual=[[1.0, 1.0], [0.0, -1.0]])
    return method, {"audio": torch.tensor([[3.0, 4.0]]), "visual": torch.tensor([[0.0, 1.0]])}


def test_worked_example():
    method, inputs = worked_example()
    logits = method(inputs, torch.ones(1, 2).bool()).logits
    torch.testing.assert_close(logits, torch.tensor([[13.071068, -2.0]]))
    assert method.task.loss(logits, torch.tensor([1])).item() == pytest.approx(15.071068)


def test_absent_modality__leaves_the_largest_possible_logit_as_it_is():
    method, inputs = worked_example()
    logits = method(inputs, torch.tensor([[True, False]])).logits
    torch.testing.assert_close(logits, torch.tensor([[12.0, 16.0]]))  # 2 / 1 times (6, 8)
    assert not method(inputs, torch.zeros(1, 2).bool()).logits.any()


def test_absent_modality__gets_no_gradient():
    method, inputs = worked_example()
    method.task.loss(method(inputs, torch.tensor([[True, False]])).logits, torch.tensor([0])).backward()
    assert method.head.heads["audio"].classify.weight.grad.any()
    assert not method.head.heads["visual"].classify.weight.grad.any()


def parsed(tmp_path, head):
    path = tmp_path / "mmcosine.yaml"
    path.write_text(CONFIG.replace(", HEAD", head))
    return load_config([path], [], get_plugins().registry)


def test_configuration__takes_the_cosine_head_and_no_other(tmp_path):
    assert parsed(tmp_path, "").config.method.name == "mmcosine"
    assert parsed(tmp_path, ", head: {name: cosine, scale: 15}").config.model.head.options.scale == 15
    with pytest.raises(ConfigError, match="method 'mmcosine' needs head 'cosine'"):
        parsed(tmp_path, ", head: linear")
