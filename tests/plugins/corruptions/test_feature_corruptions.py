import pytest
import torch
from breaking import corruption, eight_bit, generator, picture

from robustmm import DataError, Spread

VECTOR = Spread(-9.0, 900.0, (1.0, 500.0), (2.0, 100.0))


def draws(made, value, severity, count=4000):
    one = generator()
    return torch.stack([made(value, severity, one) for _ in range(count)])


def test_feature_noise__is_in_units_of_each_features_deviation():
    value = torch.tensor([3.0, 400.0])
    noise = draws(corruption("feature_noise", (2,), VECTOR), value, 3) - value
    assert noise.std(dim=0).tolist() == pytest.approx([1.0, 50.0], rel=0.04)
    assert noise.mean(dim=0).tolist() == pytest.approx([0.0, 0.0], abs=3.0)


def test_feature_noise__is_in_units_of_each_channels_deviation():
    spread = Spread(0.0, 255.0, (100.0, 100.0), (10.0, 40.0))
    value = picture(2, 60, 60)
    noise = corruption("feature_noise", (2, 60, 60), spread)(value, 4, generator()) - value
    assert noise.std(dim=(1, 2)).tolist() == pytest.approx([10.0, 40.0], rel=0.04)


def test_feature_dropout__puts_the_mean_of_training_at_the_stated_rate():
    value = torch.tensor([3.0, 400.0])
    broken = draws(corruption("feature_dropout", (2,), VECTOR), value, 4)
    lost = broken != value
    assert lost.float().mean(dim=0).tolist() == pytest.approx([0.5, 0.5], abs=0.03)
    assert torch.equal(broken, torch.where(lost, torch.tensor([1.0, 500.0]), value))
    assert float((lost[:, 0] & lost[:, 1]).float().mean()) == pytest.approx(0.25, abs=0.03)  # one by one


def test_feature_dropout__loses_pixels_in_all_channels():
    value = picture(3, 40, 40) + 1
    lost = corruption("feature_dropout", (3, 40, 40), Spread(0.0, 256.0, (0.0,) * 3, (1.0,) * 3))(
        value, 2, generator()
    ).eq(0)
    assert torch.equal(lost[0], lost[1])
    assert torch.equal(lost[0], lost[2])
    assert float(lost[0].float().mean()) == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize(("severity", "share"), [(1, 0.2), (2, 0.4), (5, 1.0)])
def test_conflict__swaps_the_stated_share_of_samples(severity, share):
    made = corruption("conflict", (2,), VECTOR)
    one, value, other = generator(), torch.zeros(2), torch.ones(2)
    swapped = torch.stack([made(value, severity, one, other) for _ in range(3000)])
    assert torch.equal(swapped[:, 0], swapped[:, 1])
    assert float(swapped.mean()) == pytest.approx(share, abs=0.03)


def test_conflict__asks_for_another_sample():
    with pytest.raises(DataError, match="corruption Conflict of modality 'm': it needs the value of another sample"):
        corruption("conflict", (2,), VECTOR)(torch.zeros(2), 1, generator())


def test_conflict__takes_the_others_holes_along():
    made = corruption("conflict", (1, 2, 2), eight_bit(1), invalid=0.0)
    other = torch.tensor([0.0, 1.0, 2.0, 3.0]).view(1, 2, 2)
    assert torch.equal(made(torch.ones(1, 2, 2), 5, generator(), other), other)
