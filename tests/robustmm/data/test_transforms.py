"""Joint augmentation: one geometry for all, photometric changes for colour alone, all draws from the generator."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from robustmm import VOID, Augmentation, DataError, JointTransform

ROLES = {"rgb": "colour", "thermal": "continuous", "depth": "exact"}
GEOMETRY = {"rescale": (0.7, 2.0), "flip": 0.5, "vertical_flip": 0.5, "rotate": 30.0}
#: ESANet's for NYUv2.
PUBLISHED = {"rescale": (1.0, 1.4), "flip": 0.5, "hue": 0.1, "saturation": 0.1, "value": 25.0}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def grid(height, width):
    """Row and column of every pixel, 8 steps apart, so that 8 bits hold them."""
    rows = torch.arange(height).view(-1, 1).expand(height, width)
    columns = torch.arange(width).view(1, -1).expand(height, width)
    return rows, columns


def coordinates(height=24, width=30):
    """A sample in which each modality and the label say where a pixel comes from; no coordinate is 0."""
    rows, columns = grid(height, width)
    return {
        "inputs": {
            "rgb": torch.stack([4 * rows + 4, 4 * columns + 4, torch.full_like(rows, 9)]).to(torch.uint8),
            "thermal": torch.stack([4.0 * rows + 4, 4.0 * columns + 4]),
            "depth": (40.0 * rows + columns + 1).unsqueeze(0),
        },
        "target": (rows // 4 * 8 + columns // 4) % 200,
        "id": "grid",
    }


def changed(options, seed=0, size=(20, 26), sample=None, roles=ROLES):
    return JointTransform(Augmentation(**options), size, roles)(sample or coordinates(), generator(seed))


def alike(one, other):
    assert one["inputs"].keys() == other["inputs"].keys()
    for name, value in one["inputs"].items():
        assert value is other["inputs"][name] is None or torch.equal(value, other["inputs"][name])
    assert torch.equal(one["target"], other["target"])


@settings(max_examples=40, deadline=None)
@given(
    options=st.fixed_dictionaries(
        {},
        optional={
            "rescale": st.sampled_from([(0.5, 0.8), (1.0, 1.4), (1.5, 3.0)]),
            "rescale_from": st.sampled_from(["size", "native"]),
            "flip": st.sampled_from([0.5, 1.0]),
            "vertical_flip": st.sampled_from([0.5, 1.0]),
            "rotate": st.sampled_from([0.0, 25.0]),
        },
    ),
    size=st.tuples(st.integers(3, 40), st.integers(3, 40)),
    seed=st.integers(0, 2**31),
)
def test_joint_transform__shows_every_modality_and_the_label_the_same_place(options, size, seed):
    result = changed(options, seed, size)
    depth, thermal, label = result["inputs"]["depth"][0], result["inputs"]["thermal"], result["target"]
    assert set(depth.unique().tolist()) <= {0.0, *coordinates()["inputs"]["depth"].unique().tolist()}
    padded = depth == 0
    rows, columns = (depth.long() - 1) // 40, (depth.long() - 1) % 40
    assert torch.equal(label[~padded], ((rows // 4 * 8 + columns // 4) % 200)[~padded])
    assert (label[padded] == VOID).all()
    if not options.get("rotate"):
        assert not padded.any()
        # Nearest and smoothed sampling of one place differ by at most a pixel of the coarser of the two grids.
        apart = 4 * max(1.0, 24 / size[0], 30 / size[1])
        assert (thermal[0] - 4 * rows - 4).abs().max() <= apart
        assert (thermal[1] - 4 * columns - 4).abs().max() <= apart
        assert (result["inputs"]["rgb"][:2].float() - thermal).abs().max() <= 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), label=st.integers(0, 254))
def test_joint_transform__never_mixes_labels_or_exact_values(seed, label):
    sample = coordinates()
    sample["target"] = torch.where(sample["target"] % 2 == 0, label, VOID)
    sample["inputs"]["depth"] = torch.where(sample["inputs"]["depth"] % 3 == 0, 65535.0, 7.5)
    result = changed(GEOMETRY, seed, sample=sample)
    assert set(result["target"].unique().tolist()) <= {label, VOID}
    assert set(result["inputs"]["depth"].unique().tolist()) <= {0.0, 7.5, 65535.0}


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_joint_transform__follows_from_the_generator_alone(seed):
    options = {**GEOMETRY, "hue": 0.1, "value": 25, "brightness": 0.2, "contrast": 0.2, "noise": 0.1, "blur": 0.5}
    before = coordinates()
    first = changed(options, seed)
    torch.rand(3)
    np.random.rand(3)  # noqa: NPY002 - the point is that the global generator has no say
    alike(first, changed(options, seed))
    sample = coordinates()
    changed(options, seed, sample=sample)
    alike(sample, before)


def test_joint_transform__draws_differently_from_one_call_to_the_next():
    transform = JointTransform(Augmentation(rescale=(1.0, 3.0)), (20, 26), ROLES)
    stream = generator()
    first, second = transform(coordinates(), stream), transform(coordinates(), stream)
    assert not torch.equal(first["target"], second["target"])


def test_joint_transform__missing_modality_changes_nothing_for_the_others():
    options = {**GEOMETRY, "hue": 0.2, "noise": 0.1}
    whole = changed(options, 3)
    for absent in ROLES:
        sample = coordinates()
        sample["inputs"][absent] = None
        result = changed(options, 3, sample=sample)
        assert result["inputs"][absent] is None
        for name in ROLES:
            if name != absent:
                assert torch.equal(result["inputs"][name], whole["inputs"][name])
        del sample["inputs"][absent]
        assert absent not in changed(options, 3, sample=sample)["inputs"]


def test_joint_transform__without_options_resizes_alone():
    result = changed({}, size=(24, 30))
    alike(result, coordinates())
    halved = changed({}, size=(12, 15))["inputs"]
    # Averages over 2 x 2 pixels: rows 4 and 8 give 6.
    assert halved["thermal"][0, 0, 0] == 6
    assert halved["rgb"].dtype == torch.uint8
    assert halved["depth"][0, 0, 0] in (1, 2, 41, 42)


def test_joint_transform__fit_is_what_evaluation_sees():
    transform = JointTransform(Augmentation(), (20, 26), ROLES)
    seen = transform(coordinates(), generator())
    for name, value in coordinates()["inputs"].items():
        array = value.permute(1, 2, 0).numpy() if len(value) > 1 else value[0].numpy()
        assert torch.equal(transform.fit(name, array), seen["inputs"][name])


def test_joint_transform__zoom_shows_the_share_that_was_asked_for():
    inputs = changed({"rescale": (2.0, 2.0)}, size=(24, 30))["inputs"]
    rows, columns = (inputs["depth"][0] - 1) // 40, (inputs["depth"][0] - 1) % 40
    assert len(rows.unique()) == 12
    assert len(columns.unique()) == 15


def test_joint_transform__native_zoom_of_one_crops_without_resizing():
    options = {"rescale": (1.0, 1.0), "rescale_from": "native"}
    depth = changed(options, size=(10, 12))["inputs"]["depth"][0]
    assert (depth[1:] - depth[:-1] == 40).all()
    assert (depth[:, 1:] - depth[:, :-1] == 1).all()
    assert depth.shape == (10, 12)


@pytest.mark.parametrize("size", [(24, 12), (10, 30), (24, 30)])
def test_joint_transform__picture_not_larger_along_both_axes_is_resized_whole(size):
    # ESANet's RandomCrop resizes where the height or the width is not larger than the crop's.
    options = {"rescale": (1.0, 1.0), "rescale_from": "native"}
    alike(changed(options, 1, size), changed({}, 0, size))


def test_joint_transform__modalities_of_different_resolution_stay_in_place():
    sample = coordinates(40, 40)
    sample["inputs"]["thermal"] = torch.nn.functional.avg_pool2d(sample["inputs"]["thermal"], 4)
    result = changed({"rescale": (2.0, 2.0), "flip": 1.0}, 5, size=(40, 40), sample=sample)
    rows, columns = (result["inputs"]["depth"][0] - 1) // 40, (result["inputs"]["depth"][0] - 1) % 40
    # A pixel of the coarse grid is four of the fine one; its corner may lie half of it away.
    assert (result["inputs"]["thermal"][0] - 4 * rows - 4).abs().max() <= 4 * 4
    assert (result["inputs"]["thermal"][1] - 4 * columns - 4).abs().max() <= 4 * 4


def test_joint_transform__flips_mirror():
    there = coordinates(20, 26)
    mirrored = changed({"flip": 1.0}, sample=coordinates(20, 26))
    assert torch.equal(mirrored["target"], there["target"].flip(1))
    assert torch.equal(mirrored["inputs"]["rgb"], there["inputs"]["rgb"].flip(2))
    upside_down = changed({"vertical_flip": 1.0}, sample=coordinates(20, 26))
    assert torch.equal(upside_down["inputs"]["depth"], there["inputs"]["depth"].flip(1))


def test_joint_transform__rotation_pads_with_nothing_and_void():
    result = changed({"rotate": 90.0}, 4, size=(24, 30))
    padded = result["target"] == VOID
    assert 0 < padded.float().mean() < 0.6
    assert (result["inputs"]["depth"][0][padded] == 0).all()
    assert (result["inputs"]["rgb"][:, padded].float().mean()) < 10


def colour(value, dtype=torch.uint8):
    sample = coordinates(20, 26)
    sample["inputs"]["rgb"] = torch.tensor(value, dtype=dtype).view(-1, 1, 1).expand(-1, 20, 26).contiguous()
    return sample


def test_joint_transform__photometric_changes_touch_colour_alone():
    options = {"hue": 0.3, "saturation": 0.3, "value": 40, "brightness": 0.3, "contrast": 0.3, "noise": 0.2, "blur": 1}
    result, plain = changed(options, 2, sample=coordinates(20, 26)), coordinates(20, 26)
    assert not torch.equal(result["inputs"]["rgb"], plain["inputs"]["rgb"])
    assert torch.equal(result["inputs"]["thermal"], plain["inputs"]["thermal"])
    assert torch.equal(result["inputs"]["depth"], plain["inputs"]["depth"])
    assert torch.equal(result["target"], plain["target"])


def test_joint_transform__value_is_shifted_within_its_levels():
    shifts = [
        int(changed({"value": 25}, seed, sample=colour([100, 100, 100]))["inputs"]["rgb"][0, 0, 0]) - 100
        for seed in range(60)
    ]
    assert -25 <= min(shifts) < -15
    assert 15 < max(shifts) <= 25


def test_joint_transform__contrast_and_brightness_go_both_ways():
    for options in ({"contrast": 0.3}, {"brightness": 0.3}):
        means = [
            float(changed(options, seed, sample=coordinates(20, 26))["inputs"]["rgb"].float().mean())
            for seed in range(20)
        ]
        plain = float(coordinates(20, 26)["inputs"]["rgb"].float().mean())
        assert min(means) < 0.9 * plain
        assert max(means) > 1.1 * plain


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_joint_transform__hue_and_saturation_are_scaled(dtype):
    sample = colour([0, 0, 0], dtype)
    # Value 200, saturation 0.5, hue 120 degrees; black and white pixels fix the range of the float picture.
    sample["inputs"]["rgb"][:] = torch.tensor([100, 200, 100]).view(3, 1, 1)
    sample["inputs"]["rgb"][:, 0, 0], sample["inputs"]["rgb"][:, 0, 1] = 0, 255
    seen = changed({"hue": 0.1, "saturation": 0.1}, 1, sample=sample)["inputs"]["rgb"][:, 5, 5].float() / 255
    high, low, middle = seen.max(), seen.min(), seen.median()
    assert high == pytest.approx(200 / 255, abs=0.01)
    assert 1 - low / high == pytest.approx(0.5, abs=0.056)
    hue = 120 + (60 if seen[2] > seen[0] else -60) * (middle - low) / (high - low)
    assert hue == pytest.approx(120, abs=13.5)
    assert not math.isclose(hue, 120, abs_tol=0.5)


def test_joint_transform__one_channel_takes_value_as_brightness_and_no_hue():
    roles = {"grey": "colour"}
    sample = {
        "inputs": {"grey": torch.full((1, 6, 6), 100, dtype=torch.uint8)},
        "target": torch.zeros(6, 6).long(),
        "id": "a",
    }
    assert (changed({"hue": 0.5}, size=(6, 6), sample=sample, roles=roles)["inputs"]["grey"] == 100).all()
    shifted = changed({"value": 25}, size=(6, 6), sample=sample, roles=roles)["inputs"]["grey"].unique()
    assert len(shifted) == 1
    assert 75 <= shifted.item() <= 125
    assert shifted.item() != 100


def test_joint_transform__float_colour_keeps_its_own_range():
    sample = coordinates(20, 26)
    sample["inputs"]["rgb"] = torch.rand(3, 20, 26) * 60000 - 1000
    result = changed({"contrast": 0.3, "noise": 0.1, "brightness": 0.2}, 1, sample=sample)["inputs"]["rgb"]
    assert result.dtype == torch.float32
    assert -1001 <= result.min() < 5000
    assert 30000 < result.max() <= 60001
    flat = coordinates(20, 26)
    flat["inputs"]["rgb"] = torch.full((3, 20, 26), 5.0)
    assert changed({"contrast": 0.3}, 1, sample=flat)["inputs"]["rgb"].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64, torch.float64, torch.float16, torch.uint16])
def test_joint_transform__other_types_become_float32(dtype):
    sample = coordinates()
    sample["inputs"]["depth"] = sample["inputs"]["depth"].to(dtype)
    depth = changed(GEOMETRY, 7, sample=sample)["inputs"]["depth"]
    assert depth.dtype == torch.float32
    assert torch.equal(depth, changed(GEOMETRY, 7)["inputs"]["depth"])


def test_joint_transform__any_number_of_channels_and_names():
    roles = {"image": "colour", "mask": "exact", "many": "colour"}
    inputs = {"image": torch.zeros(4, 9, 7), "mask": torch.ones(5, 9, 7), "many": torch.zeros(7, 9, 7)}
    sample = {"inputs": {**inputs, "words": torch.ones(3)}, "target": torch.zeros(9, 7).long(), "id": "a"}
    result = changed({**GEOMETRY, "hue": 0.1, "contrast": 0.1}, 1, size=(5, 5), sample=sample, roles=roles)
    assert {name: tuple(value.shape) for name, value in result["inputs"].items()} == {
        "image": (4, 5, 5),
        "mask": (5, 5, 5),
        "many": (7, 5, 5),
        "words": (3,),
    }


def test_joint_transform__all_void_and_one_pixel_are_pictures_too():
    sample = {"inputs": {"depth": torch.ones(1, 1, 1)}, "target": torch.full((1, 1), VOID), "id": "a"}
    result = changed(GEOMETRY, 1, size=(3, 2), sample=sample)
    assert (result["target"] == VOID).all()
    assert result["inputs"]["depth"].shape == (1, 3, 2)


def test_joint_transform__travels_to_worker_processes():
    transform = JointTransform(Augmentation(**GEOMETRY, noise=0.1), (20, 26), ROLES)
    copied = pickle.loads(pickle.dumps(transform))
    alike(transform(coordinates(), generator(5)), copied(coordinates(), generator(5)))


def test_joint_transform__published_protocol_keeps_size_and_types():
    result = changed(PUBLISHED, 1, size=(24, 30))
    assert {name: (tuple(value.shape), value.dtype) for name, value in result["inputs"].items()} == {
        "rgb": ((3, 24, 30), torch.uint8),
        "thermal": ((2, 24, 30), torch.float32),
        "depth": ((1, 24, 30), torch.float32),
    }
    assert result["target"].dtype == torch.int64


def test_joint_transform__refuses_a_target_that_is_no_map():
    sample = {**coordinates(), "target": torch.tensor(3)}
    with pytest.raises(DataError, match=r"sample 'grid': joint augmentation needs a label map, got \(\)"):
        changed({}, sample=sample)


@pytest.mark.parametrize("bad", [(0.0, 1.0), (1.4, 1.0), (-1.0, 1.0)])
def test_augmentation__refuses_a_range_that_is_none(bad):
    with pytest.raises(ValidationError, match=r"0 < low <= high, such as \[1\.0, 1\.4\]"):
        Augmentation(rescale=bad)


def test_rotation__fills_in_what_says_not_measured() -> None:
    sample = coordinates(24, 24)
    sample["inputs"]["pair"] = sample["inputs"]["thermal"]  # of two channels
    roles, marks = ROLES | {"pair": "exact"}, {"depth": -1.0, "pair": -5.0}
    turned = JointTransform(Augmentation(rotate=45.0), (24, 24), roles, marks)(sample, generator(2))
    depth, void = turned["inputs"]["depth"][0], turned["target"] == VOID
    assert void.any()
    assert (depth[void] == -1).all()
    assert not (depth == 0).any()
    assert (depth[~void] > 0).float().mean() > 0.95  # at the edge a pixel may be half outside
    assert (turned["inputs"]["pair"][:, void] == -5).all()
    plain = JointTransform(Augmentation(rotate=45.0), (24, 24), ROLES)(sample, generator(2))
    assert torch.equal(plain["inputs"]["depth"][0][depth != -1], depth[depth != -1])
