"""The network of ESANet beside the authors' code: parameters, shapes, and logits with every modality and with one."""

import json
from pathlib import Path

import pytest
import torch
from robustmm_plugins.encoders.esanet_resnet import build_esanet_resnet
from robustmm_plugins.fusion.se_add import SEAdd, SEAddOptions
from robustmm_plugins.heads.esanet_decoder import ESANetDecoder, ESANetDecoderOptions
from robustmm_plugins.trunks.esanet import ESANetOptions, build_esanet
from torch import nn

from robustmm import MissingPolicy, Modality, Scaling, TrunkParts

GOLDEN = json.loads((Path(__file__).parent / "esanet.json").read_text())
CONTEXTS = {
    "ppm": {"context": "ppm"},
    "appm": {"context": "appm"},
    "appm-1-2-4-8": {"context": "appm", "bins": (1, 2, 4, 8)},
}
CHANNELS = {"rgb": 3, "depth": 1}


def network(key, size, context="ppm"):
    name, _, block = key.partition("/")
    modalities = {one: Modality(one, "image", (channels, *size), Scaling("none")) for one, channels in CHANNELS.items()}
    options = {"weights": "none"} | ({"block": block} if block else {})
    parts = TrunkParts(
        tuple(modalities.values()),
        True,
        make_encoder=lambda one: build_esanet_resnet(modalities[one], name=name, **options),
        make_fusion=lambda channels: SEAdd(channels, **SEAddOptions().model_dump()),
        make_policy=lambda channels: MissingPolicy(),
    )
    trunk = build_esanet(parts, **ESANetOptions(**CONTEXTS[context]).model_dump())
    return trunk, ESANetDecoder(trunk.fused_channels, 40, **ESANetDecoderOptions().model_dump())


def count(*modules):
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("key", GOLDEN["parameters"])
def test_esanet__every_part_has_as_many_parameters_as_the_authors(key, context):
    with torch.device("meta"):
        trunk, head = network(key, (480, 640), context)
    gates = trunk.fusion.gates
    assert {
        "encoder_rgb": count(trunk.encoders["rgb"]),
        "encoder_depth": count(trunk.encoders["depth"]),
        "fusion": [count(gates[f"rgb_{level}"], gates[f"depth_{level}"]) for level in range(5)],
        "adapters": [count(adapter) for adapter in trunk.neck.adapters],
        "context": count(trunk.neck.context),
        "decoder": count(head),
        "total": count(trunk, head),
    } == GOLDEN["parameters"][key]


@pytest.mark.parametrize("key", GOLDEN["shapes"])
def test_esanet__stages_levels_and_side_outputs_have_the_authors_shapes(key):
    golden = GOLDEN["shapes"][key]
    size = tuple(golden["size"])
    with torch.device("meta"):
        trunk, head = network(key, size)
        inputs = {name: torch.empty(2, channels, *size) for name, channels in CHANNELS.items()}
        features, fused = trunk(inputs, torch.ones(2, 2, dtype=torch.bool, device="cpu"))
        scales = head.scales(fused, size)
    for name in CHANNELS:
        assert [list(level.shape[1:]) for level in features[name]] == golden["stages"]
    assert [list(level.shape[1:]) for level in fused] == golden["fused"]
    assert [list(logits.shape[1:]) for logits in scales] == golden["scales"]


PERIOD = ((torch.arange(10007) * 7919) % 10007).double() / 5003 - 1


def steps(shape):
    size = shape.numel()
    return PERIOD.repeat(-(-size // len(PERIOD)))[:size].view(shape)


def fill(module):
    """The weights under which the golden values were computed, see ``values.weights`` in the file."""
    for name, value in module.state_dict().items():
        if value.dim() > 1:
            value.copy_(steps(value.shape) * (1.5 / value[0].numel()) ** 0.5)
        elif name.endswith(("weight", "running_var")):
            value.copy_(1 + 0.2 * steps(value.shape))
        elif not name.endswith("num_batches_tracked"):
            value.copy_(0.1 * steps(value.shape))


def check(logits, golden, spots):
    at = [logits[(0, *spot)] for spot in spots]
    ours = [logits.mean(), logits.abs().mean(), *at]
    mean, size = (value[0] if isinstance(value, list) else value for value in (golden["mean"], golden["size"]))
    assert [float(value) for value in ours] == pytest.approx([mean, size, *golden["logits"]], rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("case", GOLDEN["values"]["cases"], ids=lambda case: case["network"])
@torch.no_grad()
def test_esanet__logits_are_the_authors_with_all_modalities_and_with_one(case):
    with torch.device("meta"):  # nothing is drawn that is overwritten
        trunk, head = network(case["network"], case["reference"], case["context"])
    nn.ModuleList([trunk, head]).double().to_empty(device="cpu").eval()
    for module in (trunk.encoders, trunk.fusion, trunk.neck, head):
        fill(module)
    size, spots = tuple(case["size"]), GOLDEN["values"]["spots"]
    elements = torch.arange(3 * size[0] * size[1]).double()
    inputs = {
        "rgb": torch.sin(elements * 0.37).view(1, 3, *size),
        "depth": torch.cos(elements[: size[0] * size[1]] * 0.11).view(1, 1, *size),
    }
    features, fused = trunk(inputs, torch.tensor([[True, True]]))
    scales = head.scales(fused, size)
    check(scales[0], case["complete"], spots)
    assert [float(logits.mean()) for logits in scales] == pytest.approx(case["complete"]["mean"], rel=1e-9, abs=1e-11)
    assert [float(logits.abs().mean()) for logits in scales] == pytest.approx(case["complete"]["size"], rel=1e-9)
    for name, presence in (("rgb", [[True, False]]), ("depth", [[False, True]])):
        check(head(trunk.refuse(features, torch.tensor(presence)), size), case[name], spots)
