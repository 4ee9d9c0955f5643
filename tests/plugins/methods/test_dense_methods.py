"""DMRNet and MMANet in dense prediction over both trunks: which levels they act on, side outputs, released forms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from robustmm_plugins.encoders.small_cnn import build_small_cnn
from robustmm_plugins.fusion.se_add import SEAdd
from robustmm_plugins.heads.esanet_decoder import ESANetDecoder
from robustmm_plugins.heads.unet import UNet
from robustmm_plugins.methods.dmrnet import DMRNet
from robustmm_plugins.methods.mmanet import MMANet
from robustmm_plugins.trunks.esanet import ESANetOptions, build_esanet
from torch import Tensor, nn

from robustmm import (
    VOID,
    Batch,
    Blueprint,
    Clock,
    ConfigError,
    Encoder,
    LateTrunk,
    Method,
    MissingPolicy,
    Modality,
    Scaling,
    SegmentationTask,
    TrunkParts,
    margin_aware_distillation,
    margin_weights,
)

SIZE = (40, 56)
MODALITIES = (
    Modality("rgb", "image", (3, *SIZE), Scaling("none")),
    Modality("depth", "image", (1, *SIZE), Scaling("none", invalid=0.0)),
)
CLASSES = ("floor", "wall", "box")
TRUNKS = ("late", "esanet")
AFTER_WARM_UP = Clock(epoch=20, step=1, epochs=30, steps_per_epoch=1)
both_trunks = pytest.mark.parametrize("trunk", TRUNKS)


def tiny_resnet(modality: Modality) -> Encoder:
    """Five stages of four channels, with the strides of ESANet's encoders."""
    widths = (modality.shape[0], 4, 4, 4, 4, 4)
    stages = nn.ModuleList(
        nn.Sequential(nn.Conv2d(widths[i], widths[i + 1], 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        for i in range(5)
    )
    return Encoder(stages, widths[1:], (2, 4, 8, 16, 32))


def blueprint(trunk: str) -> Blueprint:
    known = {one.name: one for one in MODALITIES}
    small = partial(build_small_cnn, widths=(3, 4, 5), dropout=0.0)
    parts = TrunkParts(
        MODALITIES,
        True,
        lambda name: (small if trunk == "late" else tiny_resnet)(known[name]),
        lambda channels: SEAdd(channels, 2, False),
        lambda channels: MissingPolicy(),
    )
    options = dict(ESANetOptions(skip_channels=(4, 5, 6), context_channels=8))
    makers: dict[str, tuple[Callable[[], Any], Callable[[tuple[int, ...]], Any]]] = {
        "late": (lambda: LateTrunk.of(parts), lambda channels: UNet(channels, len(CLASSES), (6, 5, 4))),
        "esanet": (
            lambda: build_esanet(parts, **options),
            lambda channels: ESANetDecoder(channels, len(CLASSES), 1, False),
        ),
    }
    return Blueprint(MODALITIES, SegmentationTask(CLASSES), *makers[trunk])


def batch(size: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(0)
    inputs = {one.name: torch.randn(size, *one.shape, generator=generator) for one in MODALITIES}
    target = torch.randint(len(CLASSES), (size, *SIZE), generator=generator)
    target[:, :5] = VOID
    observed = torch.ones(size, 2, dtype=torch.bool)
    return Batch(inputs, observed, target, tuple("abcd"[:size]), torch.arange(size))


def presence() -> Tensor:
    return torch.tensor([[True, True], [True, False], [False, True], [False, True]])


class Fit:
    def train(self, name: str, method: Method, *, epochs: int | None = None) -> None:
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.mul_(1.1)

    def load(self, path: str, method: Method) -> None:
        raise AssertionError("no file is asked for")


def ready(make: type[Any], trunk: str, **options: Any) -> Any:
    torch.manual_seed(0)
    method = make(blueprint(trunk), **options)
    method.on_fit_start(Fit())
    if make is MMANet:
        method.weak.replace([("depth",)])
    else:
        method.hard.replace([("depth",)])
    return method.train()


def terms(method: Any, data: Batch, shown: Tensor) -> dict[str, Any]:
    torch.manual_seed(1)
    output = method(data.inputs, shown, size=SIZE)
    found: dict[str, Any] = method.losses(output, data, AFTER_WARM_UP)
    return found


@both_trunks
@pytest.mark.parametrize("make", [DMRNet, MMANet])
def test_dense_methods__train_every_parameter_with_every_term(make: type[Any], trunk: str) -> None:
    method = ready(make, trunk)
    found = terms(method, batch(), presence())
    assert list(found) == (["task", "kl", "hcr"] if make is DMRNet else ["task", "mad", "mar"])
    torch.autograd.backward(sum(term.value for term in found.values()))
    idle = [name for name, parameter in method.named_parameters() if parameter.grad is None]
    assert not idle
    assert all(parameter.grad.isfinite().all() for parameter in method.parameters())


def test_side_outputs__are_supervised_in_training_alone() -> None:
    method = ready(DMRNet, "esanet", kl_weight=0.0, hcr_weight=0.0)
    data = batch()
    output = method(data.inputs, presence(), size=SIZE)
    assert [tuple(one.shape[2:]) for one in output.coarser] == [(5, 7), (3, 4), (2, 2)]
    expected = sum(method.task.loss(one, method.task.at(data.target, tuple(one.shape[2:]))) for one in output.scales)
    torch.testing.assert_close(method.losses(output, data, AFTER_WARM_UP)["task"].value, expected)
    assert not method.eval()(data.inputs, presence(), size=SIZE).coarser


@both_trunks
def test_dmrnet__samples_the_last_level_alone(trunk: str) -> None:
    method = ready(DMRNet, trunk)
    output = method(batch().inputs, presence(), size=SIZE)
    assert output.extras["mu"].shape == output.fused[-1].shape
    seen: list[list[Tensor]] = []
    method.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    method.eval()(batch().inputs, presence(), size=SIZE)
    levels, fused = seen[0], method(batch().inputs, presence(), size=SIZE).fused
    assert all(torch.equal(one, other) for one, other in zip(levels[:-1], fused[:-1], strict=True))
    torch.testing.assert_close(levels[-1], method.mean(fused[-1]))


def test_dmrnet__divergence_adds_up_channels_and_averages_positions() -> None:
    method = ready(DMRNet, "esanet")
    output = method(batch().inputs, presence(), size=SIZE)
    mu, log_var = output.extras["mu"], output.extras["log_var"]
    by_hand = 0.5 * (log_var.exp() + mu**2 - log_var - 1).sum(dim=1).mean()
    found = method.losses(output, batch(), AFTER_WARM_UP)["kl"].value
    torch.testing.assert_close(found, 1e-3 * by_hand)


@both_trunks
@pytest.mark.parametrize("make", [DMRNet, MMANet])
def test_extra_loss__is_that_of_the_hard_samples_as_a_batch_of_their_own(make: type[Any], trunk: str) -> None:
    name, head = ("hcr", "auxiliary_head") if make is DMRNet else ("mar", "regularisation_head")
    method = ready(make, trunk)
    data, shown = batch(), presence()
    torch.manual_seed(1)
    output = method(data.inputs, shown, size=SIZE)
    levels = [*output.fused[:-1], output.extras.get("sample", output.fused[-1])]
    scales = getattr(method, head).scales(levels, SIZE)
    expected = sum(method.task.loss(one[2:], method.task.at(data.target[2:], tuple(one.shape[2:]))) for one in scales)
    found = method.losses(output, data, AFTER_WARM_UP)[name].value
    torch.testing.assert_close(found, 0.5 * expected)


@both_trunks
@pytest.mark.parametrize("make", [DMRNet, MMANet])
def test_extra_loss__without_a_hard_sample_is_zero_with_a_gradient_of_zero(make: type[Any], trunk: str) -> None:
    name, head = ("hcr", "auxiliary_head") if make is DMRNet else ("mar", "regularisation_head")
    method = ready(make, trunk)
    loss = terms(method, batch(), torch.ones(4, 2, dtype=torch.bool))[name].value
    assert loss == 0
    loss.backward()
    assert not any(
        parameter.grad is not None and parameter.grad.any() for parameter in getattr(method, head).parameters()
    )


def test_mmanet__distils_the_three_deepest_levels_over_positions() -> None:
    method = ready(MMANet, "esanet", mad_weight=1.0)
    assert method.levels == [1, 2, 3]
    data, shown = batch(), presence()
    output = method(data.inputs, shown, size=SIZE)
    teacher = method._teacher(data.inputs, data.observed, size=SIZE)
    expected = torch.zeros(())
    for level in (1, 2, 3):
        own, theirs = (one.fused[level].movedim(1, -1).flatten(0, -2) for one in (output, teacher))
        logits = nn.functional.adaptive_avg_pool2d(teacher.logits, output.fused[level].shape[2:])
        weights = margin_weights(logits.movedim(1, -1).flatten(0, -2))
        expected = expected + margin_aware_distillation(own, theirs, weights, form="gram")
    torch.testing.assert_close(method.losses(output, data, AFTER_WARM_UP)["mad"].value, expected)


def test_mmanet__released_uncertainty_reads_the_decoders_first_step() -> None:
    data, shown = batch(), presence()
    losses = {}
    for uncertainty in ("logits", "decoder"):
        method = ready(MMANet, "esanet", uncertainty=uncertainty)
        losses[uncertainty] = terms(method, data, shown)["mad"].value.item()
    first = method.head.first_step(method(data.inputs, shown, size=SIZE).fused)
    assert tuple(first.shape[1:]) == (6, 3, 4)
    assert losses["logits"] != losses["decoder"]


def test_mmanet__released_uncertainty_needs_a_head_that_gives_it() -> None:
    with pytest.raises(ConfigError, match=r"method\.uncertainty: decoder needs a head .* such as esanet_decoder"):
        MMANet(blueprint("late"), uncertainty="decoder")


@pytest.mark.parametrize(("mode", "moves"), [("eval", False), ("train", True)])
def test_mmanet__statistics_of_the_teacher_drift_in_the_released_form_alone(mode: str, moves: bool) -> None:
    method = ready(MMANet, "esanet", teacher_mode=mode)
    before = {name: value.clone() for name, value in method._teacher.state_dict().items()}
    terms(method, batch(), presence())
    after = method._teacher.state_dict()
    assert any(not torch.equal(value, after[name]) for name, value in before.items()) == moves


@both_trunks
@pytest.mark.parametrize("make", [DMRNet, MMANet])
def test_deployed__gives_the_same_on_every_combination(make: type[Any], trunk: str) -> None:
    method = ready(make, trunk)
    terms(method, batch(), presence())
    method.eval()
    deployed = method.deployable().eval()
    with torch.no_grad():
        ours = deployed(batch().inputs, presence(), size=SIZE).logits
        torch.testing.assert_close(ours, method(batch().inputs, presence(), size=SIZE).logits)


@both_trunks
def test_mixed_precision__terms_are_float32_and_finite(trunk: str) -> None:
    for make in (DMRNet, MMANet):
        method = ready(make, trunk)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = terms(method, batch(), presence())
        assert all(term.value.dtype == torch.float32 and term.value.isfinite() for term in found.values())
