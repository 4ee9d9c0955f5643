"""Unimodal logits: exact shares, masked readouts, and no trace in the model."""

import pytest
import tiny_models as tiny
import torch
from robustmm_plugins.encoders.small_cnn import SmallCNNOptions, build_small_cnn
from robustmm_plugins.fusion.concat import Concat
from robustmm_plugins.heads.linear import Linear
from torch import nn

from robustmm import Blueprint, LateTrunk, Method, MissingPolicy, Modality, Scaling, TrunkParts
from robustmm.methods.probes import masked_logits, split_logits, unimodal_logits
from robustmm.models.modes import evaluating


class OwnReadout(Method):
    """A method whose readout is more than its head."""

    def readout(self, features, fused, presence, size):
        return super().readout(features, [fused[0].tanh()], presence, size)


def forward(method, count, presence):
    return method(tiny.batch(count).inputs, presence)


def test_split__matches_worked_example():
    """W = [[1, 0, 2], [0, 1, -1]], b = [0.4, -0.2], f_a = [1, 2], f_v = [3]: shares [1.2, 1.9] and [6.2, -3.1]."""
    head = tiny.LinearHead([3], 2)
    head.linear.weight.data = torch.tensor([[1.0, 0, 2], [0, 1, -1]])
    head.linear.bias.data = torch.tensor([0.4, -0.2])
    fusion = tiny.ConcatFusion([2, 1])
    features = {"a": torch.tensor([[1.0, 2]]), "v": torch.tensor([[3.0]])}
    parts = fusion.summands(0, features, torch.ones(1, 2).bool())
    shares = [head.linear_part([part], torch.tensor([0.5])) for part in parts.values()]
    torch.testing.assert_close(shares[0], torch.tensor([[1.2, 1.9]]))
    torch.testing.assert_close(shares[1], torch.tensor([[6.2, -3.1]]))
    torch.testing.assert_close(shares[0] + shares[1], head([fusion(0, features, torch.ones(1, 2).bool())], ()))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_split__of_the_present_modalities_adds_up_to_the_fused_logits(count):
    method, presence = Method(tiny.blueprint(count)), tiny.mixed_presence(count)
    output = forward(method, count, presence)
    shares = torch.stack(list(split_logits(method, output).values()), dim=1)  # (B, M, C)
    total = (shares * presence[:, :, None]).sum(dim=1)
    torch.testing.assert_close(total, output.logits, atol=1e-5, rtol=1e-5)


def test_split__is_refused_for_a_readout_of_its_own():
    method = OwnReadout(tiny.blueprint(2))
    output = forward(method, 2, torch.ones(8, 2).bool())
    assert split_logits(method, output) is None
    assert unimodal_logits(method, output).source == "masked"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_masked__equals_the_forward_pass_with_one_modality(count):
    method = OwnReadout(tiny.blueprint(count)).eval()
    output = forward(method, count, torch.ones(8, count).bool())
    for name, logits in masked_logits(method, output).items():
        torch.testing.assert_close(logits, forward(method, count, tiny.shown((name,), count)).logits)


def test_masked__leaves_mode_and_statistics_as_they_were():
    method = OwnReadout(tiny.blueprint(2))
    method.trunk.encoders["rgb"].eval()
    output = forward(method, 2, torch.ones(8, 2).bool())
    before = {name: value.clone() for name, value in method.state_dict().items()}
    modes = [part.training for part in method.modules()]
    masked_logits(method, output)
    assert modes == [part.training for part in method.modules()]
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())


def test_unimodal__is_none_where_the_trunk_cannot_fuse_again(monkeypatch):
    method = OwnReadout(tiny.blueprint(2))
    output = forward(method, 2, torch.ones(8, 2).bool())
    monkeypatch.setattr(method.trunk, "refuse", lambda features, presence: None)
    assert unimodal_logits(method, output) is None


def test_evaluating__restores_each_part_after_an_error():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    module[1].eval()

    def fail(part, arguments):
        assert not any(part.training for part in module.modules())
        raise ArithmeticError

    module[0].register_forward_pre_hook(fail)
    with pytest.raises(ArithmeticError), evaluating(module):
        module(torch.ones(1, 2))
    assert [part.training for part in module.modules()] == [True, True, False]


@pytest.mark.parametrize("kind", [Method, OwnReadout])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_unimodal__after_a_mixed_precision_forward_keeps_its_precision(kind, dtype):
    """Balancers ask after backward, when autocast is over."""
    torch.manual_seed(0)
    method = kind(tiny.blueprint(2))
    presence = torch.ones(8, 2).bool()
    with torch.autocast("cpu", dtype=dtype):
        output = forward(method, 2, presence)
    full = unimodal_logits(method, forward(method, 2, presence))
    mixed = unimodal_logits(method, output)
    assert mixed.source == full.source
    for name, logits in full.logits.items():
        torch.testing.assert_close(mixed.logits[name].float(), logits, atol=0.05, rtol=0.05)


def test_unimodal__of_a_model_in_half_precision_throughout():
    method = OwnReadout(tiny.blueprint(2)).to(torch.bfloat16)
    inputs = {name: value.bfloat16() for name, value in tiny.batch(2).inputs.items()}
    output = method(inputs, torch.ones(8, 2).bool())
    assert unimodal_logits(method, output).logits["rgb"].dtype == torch.bfloat16


def test_split__of_a_resized_head_adds_up_to_the_fused_logits() -> None:
    modalities = tuple(Modality(name, "image", (1, 9, 8), Scaling("none")) for name in ("rgb", "depth"))
    parts = TrunkParts(
        modalities,
        True,
        lambda name: build_small_cnn(modalities[0], **dict(SmallCNNOptions(widths=(3, 4)))),
        Concat,
        lambda channels: MissingPolicy(),
    )
    method = Method(
        Blueprint(modalities, tiny.TinyTask(dense=True), lambda: LateTrunk.of(parts), lambda c: Linear(c, 3))
    ).eval()
    output = method({one.name: torch.randn(2, 1, 9, 8) for one in modalities}, torch.ones(2, 2).bool(), size=(17, 5))
    shares = split_logits(method, output)
    assert shares is not None
    torch.testing.assert_close(sum(shares.values()), output.logits)
