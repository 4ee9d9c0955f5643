"""Altered raw values: sample by sample, the same in one thread and in several, and nothing where nothing is."""

import pytest
import torch

from robustmm import Batch, Modality, Scaling
from robustmm.protocols import altered as module
from robustmm.protocols.altered import altered, digest_of


def batch(size: int = 6) -> Batch:
    inputs = {"rgb": torch.rand(size, 3, 8, 8), "words": torch.rand(size, 4)}
    observed = torch.ones(size, 2, dtype=torch.bool)
    observed[1, 0] = False
    inputs["rgb"][1] = 0
    return Batch(inputs, observed, torch.zeros(size).long(), tuple(map(str, range(size))), torch.arange(size))


@pytest.mark.parametrize("threads", [1, 3])
def test_altered__changes_samples_that_have_the_modality(monkeypatch, threads):
    monkeypatch.setattr(module, "WORTH_A_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    data = batch()
    before = data.inputs["rgb"].clone()
    found = altered(data, {"rgb": lambda value, row: value + row})
    assert list(found) == ["rgb"]
    for row in range(6):
        expected = before[row] + (row if row != 1 else 0)
        assert torch.equal(found["rgb"][row], expected)
    assert torch.equal(data.inputs["rgb"], before)


def test_digest_of__tells_settings_apart():
    assert digest_of({"a": 1, "b": [2.0]}) == digest_of({"b": [2.0], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})


class Part:
    """Samples of a training part."""

    def __init__(self, samples: list[dict[str, torch.Tensor | None]]) -> None:
        self.samples = samples

    def without_augmentation(self) -> "Part":
        return self

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]):
        return key, {"inputs": self.samples[key[0]]}


def spreads(modality: Modality, values: list[torch.Tensor | None]):
    parts = type("Parts", (), {"train": Part([{"x": value} for value in values]), "modalities": (modality,)})
    return module.spreads_of(parts)["x"]  # type: ignore[arg-type]  # as much of it as is asked for


def test_spreads_of__eight_bits_have_the_whole_range_and_others_what_they_show():
    picture = torch.full((1, 2, 2), 100, dtype=torch.uint8)
    found = spreads(Modality("x", "image", (1, 2, 2)), [picture, None])
    assert (found.low, found.high) == (0.0, 255.0)
    depth = torch.tensor([[[0.0, 500.0], [1500.0, 0.0]]])
    found = spreads(Modality("x", "image", (1, 2, 2), Scaling(invalid=0.0)), [depth])
    assert (found.low, found.high, found.mean) == (500.0, 1500.0, (1000.0,))


def test_spreads_of__a_modality_that_training_never_has_gets_the_unit_range():
    found = spreads(Modality("x", "vector", (3,)), [None, None])
    assert (found.low, found.high, found.mean, found.std) == (0.0, 1.0, (0.0,) * 3, (1.0,) * 3)
