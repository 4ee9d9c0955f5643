"""WAV reading and the log-mel spectrogram against closed forms."""

import io
import math

import numpy as np
import pytest
import torch
from wav_files import wav_bytes

from robustmm import DataError
from robustmm.audio import POWER_FLOOR, LogMel, mel_filters, read_wav


@pytest.mark.parametrize(
    ("width", "values", "expected"),
    [
        (1, [128, 0, 192], [0.0, -1.0, 0.5]),
        (2, [0, -32768, 16384], [0.0, -1.0, 0.5]),
        (3, [0, -(2**23), 2**22], [0.0, -1.0, 0.5]),
        (4, [0, -(2**31), 2**30], [0.0, -1.0, 0.5]),
    ],
)
def test_read_wav__scales_every_width_to_one(width, values, expected):
    signal, rate = read_wav(io.BytesIO(wav_bytes(np.array(values), rate=16000, width=width)), "a.wav")
    assert signal.tolist() == expected
    assert rate == 16000


def test_read_wav__takes_the_mean_of_the_channels():
    signal, _ = read_wav(io.BytesIO(wav_bytes(np.array([[0, 16384], [-16384, -16384]]))), "a.wav")
    assert signal.tolist() == [0.25, -0.5]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"ID3 not a wave file at all, clearly", r"a\.wav: not a readable WAV file .*convert it to 16-bit PCM"),
        (b"", r"a\.wav: not a readable WAV file"),
    ],
)
def test_read_wav__names_the_file_that_is_none(content, text):
    with pytest.raises(DataError, match=text):
        read_wav(io.BytesIO(content), "a.wav")


def test_read_wav__refuses_silence_of_no_length():
    with pytest.raises(DataError, match=r"a\.wav: the WAV file holds no samples"):
        read_wav(io.BytesIO(wav_bytes(np.array([], dtype=np.int64))), "a.wav")
    with pytest.raises(DataError, match=r"a\.wav: the WAV file states a sampling rate of 10 Hz"):
        read_wav(io.BytesIO(wav_bytes(np.array([1]), rate=10)), "a.wav")


def test_log_mel__a_tone_lies_in_the_band_of_its_frequency():
    seconds = torch.arange(8000) / 8000
    spectrogram = LogMel(bands=40, frames=20)(torch.sin(2 * math.pi * 1000 * seconds), 8000)
    assert spectrogram.shape == (1, 40, 20)
    # 1000 Hz is 1000 mel and 4000 Hz is 2146 mel; 40 centres lie 2146 / 41 mel apart: 1000 / 52.3 - 1 is band 18.1.
    assert set(spectrogram[0].argmax(dim=0).tolist()) == {18}


def test_log_mel__equal_tones_at_two_rates_look_alike():
    tones = [torch.sin(2 * math.pi * 700 * torch.arange(rate) / rate) for rate in (8000, 16000)]
    low, high = (LogMel(frames=10)(tone, rate) for tone, rate in zip(tones, (8000, 16000), strict=True))
    strong = low > -8
    torch.testing.assert_close(low[strong], high[strong], atol=0.25, rtol=0)


def test_log_mel__short_signals_end_in_silence_and_long_ones_are_cut():
    transform = LogMel(frames=12)
    noise = torch.randn(40_000, generator=torch.Generator().manual_seed(0))
    assert (transform(noise[:300], 8000)[0, :, 4:] == torch.tensor(POWER_FLOOR).log()).all()
    assert torch.equal(transform(noise, 8000), transform(noise[:1664], 8000))  # 256 + 11 * 128 samples are seen


def test_mel_filters__sum_to_one_and_none_is_empty():
    weights = mel_filters(40, 512, 8000, 4000.0)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(40))
    assert mel_filters(40, 512, 8000, 8000.0)[-1].sum() == 0  # above half the sampling rate
