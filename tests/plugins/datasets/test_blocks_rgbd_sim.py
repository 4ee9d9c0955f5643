"""The rendered scenes, shipped and newly made, and the generator's parts that need no physics engine."""

import json
import sys

import numpy as np
import pytest
import torch
from robustmm_plugins.datasets import blocks_rgbd_sim as plugin

from robustmm import VOID, Augmentation, DataError


def build(**options):
    return plugin.build_blocks_rgbd_sim(**dict(plugin.BlocksOptions(**options)))


@pytest.fixture(scope="module")
def shipped():
    return build()


def test_blocks_rgbd_sim__ships_the_published_validation_and_test_scenes(shipped):
    assert (len(shipped.train), len(shipped.validation), len(shipped.test)) == (140, 40, 60)
    assert shipped.validation.ids[0] == "0200"
    assert shipped.test.ids[-1] == "0299"
    assert shipped.task == "segmentation"
    assert len(shipped.colours) == len(shipped.classes) == 6
    assert shipped.notes["synthetic"] == "rendered scenes; no evidence about the real world"


def test_blocks_rgbd_sim__gives_colour_depth_in_mm_and_labels(shipped):
    sample = shipped.test[0]
    rgb, depth = sample["inputs"]["rgb"], sample["inputs"]["depth"]
    assert (rgb.shape, rgb.dtype) == ((3, 120, 160), torch.uint8)
    assert depth.shape == (1, 120, 160)
    assert 500 < depth[depth > 0].median() < 2500
    assert set(sample["target"].unique().tolist()) <= {0, 1, 2, 3, 4, 5, VOID}
    # Outside of the room nothing is measured and nothing counts.
    assert torch.equal(depth[0] == 0, sample["target"] == VOID)
    assert shipped.modalities[1].unit == "mm"
    assert shipped.modalities[1].scaling.invalid == 0


def test_blocks_rgbd_sim__decals_show_in_colour_and_not_in_depth(shipped):
    """The design: beside its border, a decal's depth continues that of the floor."""
    steps = {"decal": [], "ball": []}
    for index in range(12):
        sample = shipped.test[index]
        depth, label = sample["inputs"]["depth"][0], sample["target"]
        for name in steps:
            edge = (label[1:] == plugin.CLASSES.index(name)) != (label[:-1] == plugin.CLASSES.index(name))
            edge &= (label[1:] == 0) | (label[:-1] == 0)
            steps[name] += (depth[1:] - depth[:-1]).abs()[edge].tolist()
    assert np.median(steps["decal"]) < 20
    assert np.median(steps["ball"]) > 2 * np.median(steps["decal"])


def test_blocks_rgbd_sim__brings_inputs_to_the_size_asked_for():
    splits = build(size=(30, 40), augmentation=Augmentation(flip=1.0))
    sample = splits.train[0]
    assert sample["inputs"]["rgb"].shape == splits.modalities[0].shape == (3, 30, 40)
    assert sample["target"].shape == (120, 160)
    augmented = splits.train.augment(sample, torch.Generator())
    assert augmented["target"].shape == (30, 40)
    assert torch.equal(augmented["inputs"]["depth"], sample["inputs"]["depth"].flip(2))


@pytest.fixture
def root(shipped, tmp_path):
    """A set of three scenes in a folder of its own."""
    for folder, suffix in (("rgb", "webp"), ("depth", "png"), ("label", "png")):
        (tmp_path / folder).mkdir()
        for name in ("0000", "0200", "0240"):
            source = plugin.embedded(plugin.NAME) / folder / f"{name}.{suffix}"
            (tmp_path / folder / source.name).write_bytes(source.read_bytes())
    parts = {"train": ["0000"], "val": ["0200"], "test": ["0240"]}
    (tmp_path / "splits.json").write_text(json.dumps(parts))
    return tmp_path


def test_blocks_rgbd_sim__reads_a_set_of_ones_own(root, shipped):
    splits = build(root=str(root), augmentation=None)
    assert [part.ids for part in (splits.train, splits.validation, splits.test)] == [("0000",), ("0200",), ("0240",)]
    assert torch.equal(splits.test[0]["inputs"]["rgb"], shipped.test[0]["inputs"]["rgb"])


def test_blocks_rgbd_sim__says_what_is_wrong_with_a_folder(root):
    (root / "depth" / "0240.png").unlink()
    with pytest.raises(DataError, match=r"depth: no file of 1 of 1 samples: 0240; it holds 0000, 0200"):
        build(root=str(root))
    (root / "splits.json").write_text('{"train": ["0000"], "val": [], "test": ["0240"]}')
    with pytest.raises(DataError, match=r"splits\.json: 'val' must be a list of names that is not empty"):
        build(root=str(root))
    (root / "splits.json").write_text('{"train": ["0000"], "val": ["0000"], "test": ["0240"]}')
    with pytest.raises(DataError, match=r"splits\.json: a sample stands in two places: 0000"):
        build(root=str(root))
    (root / "splits.json").write_text("{")
    with pytest.raises(DataError, match=r"splits\.json: not a readable JSON file"):
        build(root=str(root))
    (root / "splits.json").unlink()
    with pytest.raises(DataError, match=r"lacks splits\.json; expected .*pip install pybullet, then .*--out"):
        build(root=str(root))


# The generator


def test_generate_blocks_rgbd__splits_follow_the_order_of_frames(load_tool):
    splits = load_tool("generate_blocks_rgbd").make_splits(300, 140)
    assert {part: (names[0], names[-1], len(names)) for part, names in splits.items()} == {
        "train": ("0000", "0139", 140),
        "val": ("0200", "0239", 40),
        "test": ("0240", "0299", 60),
    }
    assert splits == json.loads((plugin.embedded(plugin.NAME) / "splits.json").read_text())
    assert sum(map(len, load_tool("generate_blocks_rgbd").make_splits(7, None).values())) == 7


def test_generate_blocks_rgbd__textures_have_grain_and_at_most_two_colours(load_tool):
    tool = load_tool("generate_blocks_rgbd")
    for kind in range(4):
        mask = tool.pattern(np.random.default_rng(kind), kind, 32, 1)
        assert mask.shape == (32, 32)
        assert set(np.unique(mask)) <= {0.0, 1.0}
        assert (kind == 0) == (len(np.unique(mask)) == 1)
    picture = tool.texture(np.random.default_rng(0), 32)
    assert picture.size == (32, 32)
    assert np.array_equal(picture, tool.texture(np.random.default_rng(0), 32))
    assert np.asarray(picture).std() > 3


def test_generate_blocks_rgbd__says_that_it_needs_an_engine(load_tool, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pybullet", None)
    with pytest.raises(SystemExit, match="this tool needs pybullet: pip install pybullet"):
        load_tool("generate_blocks_rgbd").main(["--out", str(tmp_path)])


def test_generate_blocks_rgbd__renders_the_shipped_scenes_again(load_tool, tmp_path):
    pytest.importorskip("pybullet", reason="the generator's engine is not installed")
    load_tool("generate_blocks_rgbd").main(["--out", str(tmp_path), "--frames", "1"])
    for name in ("rgb/0000.webp", "depth/0000.png", "label/0000.png"):
        assert (tmp_path / name).read_bytes() == (plugin.embedded(plugin.NAME) / name).read_bytes()


@pytest.mark.data("blocks_rgbd_sim")
def test_blocks_rgbd_sim__whole_set_has_the_shipped_scenes_and_60_more(external_data, shipped):
    whole = build(root=str(external_data))
    assert len(whole.train) == 200
    for part in ("validation", "test"):
        ours, theirs = getattr(shipped, part), getattr(whole, part)
        assert ours.ids == theirs.ids
        for index in (0, len(ours) - 1):
            assert torch.equal(ours[index]["target"], theirs[index]["target"])
            for name, value in ours[index]["inputs"].items():
                assert torch.equal(value, theirs[index]["inputs"][name])
