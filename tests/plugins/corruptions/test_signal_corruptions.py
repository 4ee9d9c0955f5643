import math

import pytest
import torch
from breaking import corruption, generator

from robustmm import Spread

TIME = torch.arange(1000) / 1000
SINES = torch.stack([torch.sin(40 * TIME), 9.81 + 0.1 * torch.sin(70 * TIME)])
SPREAD = Spread(-1.0, 9.91, (0.0, 9.81), (0.7, 0.07))


def ratio_db(signal, noise):
    return [10 * math.log10(float(s.var(correction=0) / n.square().mean())) for s, n in zip(signal, noise, strict=True)]


@pytest.mark.parametrize(("severity", "expected"), [(1, 20), (2, 15), (3, 10), (4, 5), (5, 0)])
def test_audio_noise__realises_its_ratio_in_every_channel(severity, expected):
    broken = corruption("audio_noise", (2, 1000), SPREAD)(SINES, severity, generator())
    assert ratio_db(SINES, broken - SINES) == pytest.approx([expected, expected], abs=0.01)


def test_audio_noise__leaves_silence_alone():
    quiet = torch.stack([SINES[0], torch.full((1000,), 3.0)])
    broken = corruption("audio_noise", (2, 1000), SPREAD)(quiet, 5, generator())
    assert torch.equal(broken[1], quiet[1])


def test_audio_noise__measures_what_was_measured():
    value = SINES + 20
    value[:, ::2] = 0.0
    broken = corruption("audio_noise", (2, 1000), SPREAD, invalid=0.0)(value, 3, generator())
    assert not broken[:, ::2].any()
    assert ratio_db(value[:, 1::2], (broken - value)[:, 1::2]) == pytest.approx([10, 10], abs=0.01)


@pytest.mark.parametrize(("severity", "share"), [(1, 0.05), (3, 0.2), (5, 0.4)])
def test_clipping__cuts_the_stated_share_of_each_channel(severity, share):
    noise = torch.randn(2, 1000, generator=generator()) * torch.tensor([[1.0], [5.0]])
    broken = corruption("clipping", (2, 1000), SPREAD)(noise, severity, generator())
    assert (broken != noise).float().mean(dim=1).tolist() == pytest.approx([share, share], abs=0.002)


def test_clipping__is_about_the_mean():
    value = torch.tensor([[10.0, 11.0, 9.0, 14.0, 6.0]])
    broken = corruption("clipping", (1, 5), Spread(6.0, 14.0, (10.0,), (2.6,)), levels=(0.5, 0.5, 0.5, 0.5, 0.5))(
        value, 1, generator()
    )
    assert broken.tolist() == [[10.0, 11.0, 9.0, 11.0, 9.0]]  # distances 0 1 1 4 4, of which 1 is the median


def test_time_dropout__loses_spans_in_all_channels():
    made = corruption("time_dropout", (2, 1000), SPREAD, spans=4)
    for severity, share in enumerate((0.1, 0.2, 0.3, 0.5, 0.7), start=1):
        lost = made(SINES + 50, severity, generator(2)) != SINES + 50
        assert torch.equal(lost[0], lost[1])
        assert int(lost[0].sum()) == share * 1000
        assert int((lost[0, 1:] & ~lost[0, :-1]).sum() + lost[0, 0]) == 4


def test_time_dropout__fills_in_the_mean_or_zero():
    value = SINES + 50
    lost = corruption("time_dropout", (2, 1000), SPREAD)(value, 3, generator())
    assert lost[1].unique().isclose(torch.tensor(9.81)).any()
    zero = corruption("time_dropout", (2, 1000), SPREAD, fill="zero")(value, 3, generator())
    assert torch.equal(zero == 0, lost != value)


def test_time_dropout__does_with_less_time_than_spans():
    made = corruption("time_dropout", (1, 2), Spread(0.0, 1.0, (0.5,), (0.1,)), spans=5)
    assert made(torch.ones(1, 2), 5, generator()).shape == (1, 2)
