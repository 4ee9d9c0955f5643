"""Stored masks: equal bytes for equal masks, and only for the samples that they were drawn for."""

import hashlib

import pytest
import torch

from robustmm import CheckpointError, ConfigError
from robustmm.protocols.mask_file import Mask, MaskFile, load_masks


def masks(seed: int = 0, ids: tuple[str, ...] = ("a", "b", "c")) -> MaskFile:
    generator = torch.Generator().manual_seed(seed)
    shown = [torch.rand(len(ids), 2, generator=generator) < 0.6 for _ in range(2)]
    places = [("bernoulli", None, 0.4, 0), ("per_modality", "rgb", 0.4, 1)]
    return MaskFile(("rgb", "depth"), ids, tuple(Mask(*place, own) for place, own in zip(places, shown, strict=True)))


def test_save__load_gives_the_same_and_saving_again_the_same_bytes(tmp_path):
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    digest = masks().save(first)
    loaded = load_masks(first)
    assert loaded.modalities == ("rgb", "depth")
    assert loaded.ids == ("a", "b", "c")
    for one, other in zip(loaded.masks, masks().masks, strict=True):
        assert (one.pattern, one.modality, one.rate, one.seed) == (
            other.pattern,
            other.modality,
            other.rate,
            other.seed,
        )
        assert torch.equal(one.shown, other.shown)
    assert loaded.save(second) == digest == hashlib.sha256(first.read_bytes()).hexdigest()
    assert first.read_bytes() == second.read_bytes()
    assert masks(seed=1).save(second) != digest


def test_require__refuses_other_modalities_and_other_samples():
    kept = masks()
    kept.require_shape(["rgb", "depth"], 3, "place")
    kept.require_ids(["a", "b", "c"], "place")
    with pytest.raises(ConfigError, match=r"place: the masks are of the modalities rgb, depth, the run has depth, rgb"):
        kept.require_shape(["depth", "rgb"], 3, "place")
    with pytest.raises(ConfigError, match=r"of 3 samples, the part has 2; draw new masks"):
        kept.require_shape(["rgb", "depth"], 2, "place")
    with pytest.raises(ConfigError, match="of other samples, such as c; draw new masks"):
        kept.require_ids(["a", "b", "d"], "place")
    with pytest.raises(ConfigError, match="of the same samples in another order; draw new masks"):
        kept.require_ids(["b", "a", "c"], "place")


@pytest.mark.parametrize("content", [b"", b"no zip"])
def test_load_masks__damaged_file_is_named(tmp_path, content):
    path = tmp_path / "masks.npz"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"masks\.npz cannot be read as a mask file"):
        load_masks(path)
