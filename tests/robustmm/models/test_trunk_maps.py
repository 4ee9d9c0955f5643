"""LateTrunk over maps: every level fused, against brute force."""

from __future__ import annotations

import pytest
import torch
from robustmm_plugins.encoders.small_cnn import SmallCNNOptions, build_small_cnn
from robustmm_plugins.fusion.concat import Concat
from robustmm_plugins.missing.learned_token import LearnedToken
from robustmm_plugins.missing.zero_input import ZeroInput
from torch import Tensor

from robustmm import Encoder, LateTrunk, MissingPolicy, Modality, Scaling, ShapeError, TrunkParts
from robustmm.masks import all_combinations, presence_of

POLICIES = {"zero_feature": lambda channels: MissingPolicy(), "zero_input": ZeroInput, "learned_token": LearnedToken}
NAMES = ("rgb", "depth", "ir")
SIZE = (13, 10)
ROWS = 4


def modality(name: str, channels: int) -> Modality:
    return Modality(name, "image", (channels, *SIZE), Scaling("none"))


def encoder(one: Modality, widths: tuple[int, ...] = (3, 4, 5)) -> Encoder:
    return build_small_cnn(one, **dict(SmallCNNOptions(widths=widths)))


def make_trunk(count: int = 2, policy: str = "zero_feature", *, skip_absent: bool = True) -> LateTrunk:
    torch.manual_seed(0)
    modalities = tuple(modality(name, 1 + index) for index, name in enumerate(NAMES[:count]))
    known = {one.name: one for one in modalities}
    return LateTrunk.of(
        TrunkParts(modalities, True, lambda name: encoder(known[name]), Concat, POLICIES[policy], skip_absent)
    )


def make_inputs(trunk: LateTrunk, rows: int = ROWS) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(rows, *shape, generator=generator) for name, shape in trunk.shapes.items()}


def ran(trunk: LateTrunk, name: str) -> list[int]:
    """Rows that the encoder of a modality was given, call by call."""
    calls: list[int] = []
    trunk.encoders[name].register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    return calls


def test_late_trunk__fuses_every_level_at_its_own_size() -> None:
    trunk = make_trunk()
    features, fused = trunk(make_inputs(trunk), torch.ones(ROWS, 2, dtype=torch.bool))
    assert [tuple(level.shape[1:]) for level in features["depth"]] == [(3, 7, 5), (4, 4, 3), (5, 2, 2)]
    assert [tuple(level.shape[1:]) for level in fused] == [(6, 7, 5), (8, 4, 3), (10, 2, 2)]
    assert trunk.fused_channels == (6, 8, 10)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_late_trunk__of_maps_fuses_anew_what_it_would_encode_anew(policy: str, count: int) -> None:
    trunk = make_trunk(count, policy).train()
    inputs, complete = make_inputs(trunk), torch.ones(ROWS, count, dtype=torch.bool)
    trunk(inputs, complete)  # running statistics that are not the initial ones
    trunk.eval()
    features, _ = trunk(inputs, complete)
    for combination in all_combinations(NAMES[:count]):
        presence = presence_of(combination, NAMES[:count]).expand(ROWS, -1)
        fused = trunk.refuse(features, presence)
        assert fused is not None
        torch.testing.assert_close(fused, trunk(inputs, presence)[1])


def test_late_trunk__absent_maps_are_zeros_of_the_right_size_and_sized_once() -> None:
    trunk = make_trunk().eval()
    calls, inputs = ran(trunk, "depth"), make_inputs(trunk)
    rgb_alone = torch.tensor([[True, False]]).expand(ROWS, -1)
    features, fused = trunk(inputs, rgb_alone)
    assert not any(level.any() for level in features["depth"])
    assert [level.shape[2:] for level in features["depth"]] == [level.shape[2:] for level in features["rgb"]]
    trunk(inputs, rgb_alone)
    assert calls == [1]  # one row, once, to learn the sizes
    torch.testing.assert_close(fused, make_trunk(skip_absent=False).eval()(inputs, rgb_alone)[1])


def test_late_trunk__sizing_leaves_statistics_and_mode_alone() -> None:
    trunk = make_trunk().train()
    before = {name: buffer.clone() for name, buffer in trunk.encoders["depth"].named_buffers()}
    trunk(make_inputs(trunk), torch.tensor([[True, False]]).expand(ROWS, -1))
    assert trunk.encoders["depth"].training
    for name, buffer in trunk.encoders["depth"].named_buffers():
        torch.testing.assert_close(buffer, before[name])


def test_late_trunk__batch_of_one_picture_trains() -> None:
    trunk = make_trunk().train()
    fused = trunk(make_inputs(trunk, rows=1), torch.ones(1, 2, dtype=torch.bool))[1]
    assert all(level.isfinite().all() for level in fused)


def test_late_trunk__summands_of_maps_add_up_at_every_level() -> None:
    trunk = make_trunk(3).eval()
    features, fused = trunk(make_inputs(trunk), torch.ones(ROWS, 3, dtype=torch.bool))
    parts = trunk.summands(features, torch.ones(ROWS, 3, dtype=torch.bool))
    assert parts is not None
    for level, whole in enumerate(fused):
        torch.testing.assert_close(sum(parts[name][level] for name in NAMES), whole)


def test_late_trunk__maps_of_unequal_sizes_are_refused_with_both_sizes() -> None:
    small = Modality("depth", "image", (1, 6, 5), Scaling("none"))
    known = {"rgb": modality("rgb", 3), "depth": small}
    parts = TrunkParts(tuple(known.values()), True, lambda name: encoder(known[name]), Concat, POLICIES["zero_feature"])
    inputs = {name: torch.zeros(2, *one.shape) for name, one in known.items()}
    with pytest.raises(ShapeError, match=r"level 0 is rgb 7x5, depth 3x3; fusion needs maps of one size"):
        LateTrunk.of(parts)(inputs, torch.ones(2, 2, dtype=torch.bool))


def test_late_trunk__skipped_rows_keep_the_memory_format() -> None:
    trunk = make_trunk().to(memory_format=torch.channels_last).train()
    presence = torch.tensor([[True, True], [True, False], [True, True], [True, False]])
    features, _ = trunk(make_inputs(trunk), presence)
    first = features["depth"][0]
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert not first[1].any()
    assert first[0].any()
    first.sum().backward()
    assert all(weight.grad is not None for weight in trunk.encoders["depth"].stages[0].parameters())


def test_late_trunk__errors_of_an_encoder_stay_what_they_are() -> None:
    trunk = make_trunk().train()

    def refuse(*_: object) -> None:
        raise ValueError("no such thing")

    trunk.encoders["rgb"].register_forward_pre_hook(refuse)
    with pytest.raises(ValueError, match="no such thing"):
        trunk(make_inputs(trunk, rows=1), torch.ones(1, 2, dtype=torch.bool))
