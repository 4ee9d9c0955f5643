"""The noise sweeps: deviations in grey levels, shares of hit pictures and pixels, and what is left alone."""

import pytest
import torch

from robustmm import Modality, Scaling
from robustmm.corruption import Spread
from robustmm.protocols.noise import Draw, noisy
from robustmm.seeding import generator_for

PICTURE = Modality("rgb", "image", (3, 32, 32))
EIGHT_BITS = Spread(0.0, 255.0, (128.0,) * 3, (40.0,) * 3)


def many(draw: Draw, modality: Modality, spread: Spread, value: torch.Tensor, count: int = 400) -> torch.Tensor:
    return torch.stack([noisy(value, draw, modality, spread, generator_for("n", seed)) for seed in range(count)])


@pytest.mark.parametrize("strength", [5.0, 10.0])
def test_gaussian__half_of_the_pictures_get_one_pattern_in_all_channels(strength):
    value = torch.full((3, 32, 32), 128.0)
    noise = many(Draw("gaussian", strength, 0), PICTURE, EIGHT_BITS, value) - value
    hit = noise.flatten(1).any(dim=1)
    assert float(hit.double().mean()) == pytest.approx(0.5, abs=0.08)
    assert float(noise[hit].std()) == pytest.approx(strength, rel=0.02)
    assert torch.equal(noise[:, 0], noise[:, 2])


def test_gaussian__other_raw_ranges_get_the_same_share_of_their_range():
    unit = Spread(0.0, 1.0, (0.5,) * 3, (0.2,) * 3)
    value = torch.full((3, 32, 32), 0.5)
    noise = many(Draw("gaussian", 10.0, 0), PICTURE, unit, value) - value
    hit = noise.flatten(1).any(dim=1)
    assert float(noise[hit].std()) == pytest.approx(10 / 255, rel=0.02)


@pytest.mark.parametrize(("kind", "share"), [("salt_pepper_qmf", 0.05), ("salt_pepper_pdf", 0.5)])
def test_salt_pepper__the_published_shares_at_strength_10(kind, share):
    value = torch.full((3, 32, 32), 128.0)
    changed = many(Draw(kind, 10.0, 0), PICTURE, EIGHT_BITS, value, 1000) != value
    hit = changed.flatten(1).any(dim=1)
    assert float(hit.double().mean()) == pytest.approx(share, abs=0.05)
    assert float(changed[hit].double().mean()) == pytest.approx(0.1, abs=0.01)


def test_gaussian__a_vector_loses_features_as_a_text_loses_words():
    vector = Modality("words", "vector", (200,))
    spread = Spread(-1.0, 9.0, (7.0,) * 200, (1.0,) * 200)
    value = torch.zeros(200)
    half = many(Draw("gaussian", 5.0, 0), vector, spread, value)
    hit = half.any(dim=1)
    assert float((half[hit] == 7).double().mean()) == pytest.approx(0.5, abs=0.02)
    assert set(half.unique().tolist()) == {0.0, 7.0}
    everything = many(Draw("gaussian", 10.0, 0), vector, spread, value)
    assert (everything[everything.any(dim=1)] == 7).all()


def test_salt_pepper__leaves_vectors_and_unmeasured_positions_alone():
    vector = Modality("words", "vector", (5,))
    same = noisy(
        torch.ones(5), Draw("salt_pepper_pdf", 10.0, 0), vector, Spread(0, 2, (1.0,) * 5, (1.0,) * 5), generator_for(0)
    )
    assert torch.equal(same, torch.ones(5))
    depth = Modality("depth", "image", (1, 8, 8), Scaling(invalid=0.0))
    value = torch.zeros(1, 8, 8)
    value[:, 4:] = 100.0
    made = many(Draw("gaussian", 10.0, 0), depth, Spread(50.0, 200.0, (100.0,), (30.0,)), value, 50)
    assert (made[:, :, :4] == 0).all()
    assert (made[:, :, 4:] != 100).any()
