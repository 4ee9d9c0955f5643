"""ImageNet-C's corruptions against closed forms and the libraries that the benchmark is made with."""

import colorsys
import io

import numpy as np
import pytest
import torch
from breaking import corruption, eight_bit, generator, picture
from PIL import Image
from scipy import ndimage

from robustmm import ConfigError, Spread

GREY = torch.full((3, 100, 100), 127.5)


def test_gaussian_noise__has_the_published_deviation_at_severity_3():
    broken = corruption("gaussian_noise", (3, 100, 100), eight_bit(3))(GREY, 3, generator())
    noise = (broken - GREY) / 255
    assert float(noise.var()) == pytest.approx(0.18**2, rel=0.03)  # 30000 draws; 1 in 180 is clipped
    assert float(noise.mean()) == pytest.approx(0, abs=0.005)


def test_gaussian_noise__is_relative_to_the_range_of_values():
    spread = Spread(-2.0, 6.0, (2.0,) * 3, (1.0,) * 3)
    broken = corruption("gaussian_noise", (3, 100, 100), spread)(torch.full((3, 100, 100), 2.0), 1, generator())
    assert float(broken.std()) == pytest.approx(0.08 * 8, rel=0.02)


def test_gaussian_noise__stays_within_the_range_or_the_samples_own_where_that_is_wider():
    made = corruption("gaussian_noise", (3, 20, 20), eight_bit(3))
    broken = made(picture(3, 20, 20), 5, generator())
    assert (float(broken.min()), float(broken.max())) == (0.0, 255.0)
    wider = picture(3, 20, 20)
    wider[0, 0, 0] = 300.0
    assert 255 < float(made(wider, 5, generator()).max()) <= 300.001


def test_gaussian_noise__is_one_pattern_in_growing_strength():
    made = corruption("gaussian_noise", (3, 100, 100), eight_bit(3))
    weak, strong = (made(GREY, severity, generator(4)) - GREY for severity in (1, 2))
    assert torch.allclose(strong, (weak * 0.12 / 0.08).clamp(-127.5, 127.5), atol=1e-3)


def test_shot_noise__keeps_the_mean_and_has_the_variance_of_counts():
    broken = corruption("shot_noise", (3, 100, 100), eight_bit(3))(GREY, 1, generator()) / 255
    assert float(broken.mean()) == pytest.approx(0.5, rel=0.01)
    assert float(broken.var()) == pytest.approx(0.5 / 60, rel=0.03)


def test_impulse_noise__replaces_the_published_share_by_both_ends_alike():
    broken = corruption("impulse_noise", (3, 100, 100), eight_bit(3))(GREY, 5, generator())
    black, white = (float((broken == end).float().mean()) for end in (0.0, 255.0))
    assert black == pytest.approx(0.135, abs=0.008)
    assert white == pytest.approx(0.135, abs=0.008)
    assert float((broken == 127.5).float().mean()) == pytest.approx(0.73, abs=0.01)


def test_gaussian_blur__is_scipys_with_a_width_that_follows_the_size():
    value = picture(3, 56, 80)
    broken = corruption("gaussian_blur", (3, 56, 80), eight_bit(3))(value, 5, generator())
    expected = ndimage.gaussian_filter(value.numpy(), (0, 1.5, 1.5), mode="nearest", truncate=4.0)  # 6 * 56 / 224
    assert np.abs(broken.numpy() - expected).max() < 1e-3


def test_gaussian_blur__does_not_draw_what_was_not_measured_into_the_mean():
    value = torch.full((1, 56, 56), 4000.0)
    value[:, 20:30, 20:30] = 0
    made = corruption("gaussian_blur", (1, 56, 56), Spread(500.0, 8000.0, (4000.0,), (900.0,)), invalid=0.0)
    assert torch.allclose(made(value, 5, generator()), value, rtol=1e-5)


def test_contrast__draws_each_channel_to_its_own_mean():
    value = torch.tensor([0.0, 100.0, 200.0, 10.0, 20.0, 30.0]).view(2, 1, 3)
    broken = corruption("contrast", (2, 1, 3), eight_bit(2))(value, 4, generator())
    assert torch.allclose(broken.flatten(), torch.tensor([90.0, 100.0, 110.0, 19.0, 20.0, 21.0]), atol=1e-3)


def test_contrast__takes_the_mean_of_what_was_measured():
    value = torch.tensor([0.0, 1000.0, 3000.0]).view(1, 1, 3)
    made = corruption("contrast", (1, 1, 3), Spread(0.0, 4000.0, (2000.0,), (1.0,)), invalid=0.0)
    assert torch.allclose(made(value, 4, generator()).flatten(), torch.tensor([0.0, 1900.0, 2100.0]), atol=0.01)


def test_brightness__adds_to_the_value_of_hsv():
    value = picture(3, 8, 8)
    value[:, 0, 0] = 0
    broken = corruption("brightness", (3, 8, 8), eight_bit(3))(value, 2, generator())
    for pixel, result in zip(value.flatten(1).T / 255, broken.flatten(1).T / 255, strict=True):
        hue, saturation, bright = colorsys.rgb_to_hsv(*pixel.tolist())
        expected = colorsys.hsv_to_rgb(hue, saturation, min(bright + 0.2, 1.0))
        assert result.tolist() == pytest.approx(expected, abs=1e-5)


def test_brightness__adds_to_all_values_of_other_pictures():
    value = torch.tensor([0.0, 100.0, 250.0]).view(1, 1, 3)
    broken = corruption("brightness", (1, 1, 3), eight_bit(1))(value, 1, generator())
    assert torch.allclose(broken.flatten(), torch.tensor([25.5, 125.5, 255.0]), atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(224, 224), (48, 64), (33, 47), (3, 2)])
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_pixelate__is_pillows_box_filter_down_and_up(severity, height, width):
    value = picture(2, height, width)
    broken = corruption("pixelate", (2, height, width), eight_bit(2))(value, severity, generator())
    share = {1: 0.6, 3: 0.4, 5: 0.25}[severity]
    small = max(int(width * share), 1), max(int(height * share), 1)
    for channel, result in zip(value.numpy(), broken.numpy(), strict=True):
        down = Image.fromarray(channel).resize(small, Image.Resampling.BOX)
        expected = np.array(down.resize((width, height), Image.Resampling.BOX))
        assert np.abs(result - expected).max() < 1e-3


def test_pixelate__averages_boxes():
    value = torch.tensor([[0.0, 2.0, 4.0, 6.0], [2.0, 4.0, 6.0, 8.0]])[None]
    broken = corruption("pixelate", (1, 2, 4), eight_bit(1))(value, 2, generator())  # half of each side
    assert torch.allclose(broken[0], torch.tensor([[2.0, 2.0, 6.0, 6.0]] * 2), atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg__is_pillows(channels):
    value = picture(channels, 33, 47)
    broken = corruption("jpeg", (channels, 33, 47), eight_bit(channels))(value, 3, generator())
    pixels = value.byte().movedim(0, -1).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels if channels == 3 else pixels[..., 0]).save(file, "JPEG", quality=15)
    expected = np.array(Image.open(file)).reshape(33, 47, channels)
    assert np.array_equal(broken.round().byte().movedim(0, -1).numpy(), expected)


def test_jpeg__refuses_other_channels_and_measurements():
    with pytest.raises(ConfigError, match="corruption Jpeg of modality 'm': it needs 1 or 3 channels, not 4"):
        corruption("jpeg", (4, 8, 8), eight_bit(4))
    with pytest.raises(ConfigError, match="it needs a picture, not a map of measurements"):
        corruption("jpeg", (1, 8, 8), Spread(1.0, 9000.0, (3000.0,), (1.0,)), invalid=0.0)


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "impulse_noise", "pixelate", "gaussian_blur"])
def test_noise_on_depth__keeps_holes_and_makes_none(name):
    value = picture(1, 40, 40) * 10 + 500
    value[:, 3:9, 5:30] = 0
    made = corruption(name, (1, 40, 40), Spread(500.0, 3050.0, (1800.0,), (700.0,)), invalid=0.0)
    broken = made(value, 5, generator())
    assert torch.equal(broken == 0, value == 0)
    assert float(broken[broken != 0].min()) >= 499.9


def test_levels__may_be_others():
    made = corruption("gaussian_noise", (3, 100, 100), eight_bit(3), levels=(0.01, 0.02, 0.03, 0.04, 0.05))
    assert float((made(GREY, 5, generator()) - GREY).std()) == pytest.approx(0.05 * 255, rel=0.02)
