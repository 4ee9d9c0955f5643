"""WAV files and log-mel spectrograms, with nothing but the standard library and torch."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustmm.errors import DataError

#: Added to the power before the logarithm: silence of digital amplitude 1e-4.
POWER_FLOOR = 1e-8
LOWEST_RATE_HZ = 1000


def read_wav(file: BinaryIO, name: str) -> tuple[Tensor, int]:
    """Samples of a PCM WAV file.

    Args:
        file: Opened for reading in binary mode.
        name: How messages call it.

    Returns:
        Mono signal in [-1, 1), (T,), the mean of the channels; and the sampling rate in Hz.

    Raises:
        DataError: the file is no PCM WAV file of 8, 16, 24 or 32 bits, holds no samples, or has a rate below 1000 Hz.
    """
    try:
        with wave.open(file) as reader:
            width, channels, rate = reader.getsampwidth(), reader.getnchannels(), reader.getframerate()
            raw = reader.readframes(reader.getnframes())
    except (wave.Error, EOFError) as error:
        reason = str(error) or "it ends too early"
        raise DataError(f"{name}: not a readable WAV file ({reason}); convert it to 16-bit PCM WAV") from None
    raw = raw[: len(raw) // (width * channels) * width * channels]
    if not raw:
        raise DataError(f"{name}: the WAV file holds no samples")
    if rate < LOWEST_RATE_HZ:
        raise DataError(
            f"{name}: the WAV file states a sampling rate of {rate} Hz, at least {LOWEST_RATE_HZ} is needed"
        )
    return torch.from_numpy(_decode(raw, width)).view(-1, channels).mean(dim=1), rate


def _decode(raw: bytes, width: int) -> NDArray[Any]:
    """PCM bytes of ``width`` bytes a sample to [-1, 1)."""
    if width == 1:  # the one unsigned format
        return ((np.frombuffer(raw, np.uint8).astype(np.float32)) - 128) / 128
    if width == 3:
        padded = np.zeros((len(raw) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        raw, width = padded.tobytes(), 4
    values: NDArray[Any] = np.frombuffer(raw, f"<i{width}") / 2.0 ** (8 * width - 1)
    return values.astype(np.float32)


@dataclass(frozen=True)
class LogMel:
    """Log-mel spectrogram of a fixed size; lengths are in seconds, so recordings of any rate give equal axes.

    Args:
        bands: Mel bands from 0 Hz to ``max_hz``.
        frames: Time steps; a longer signal is cut at the end, a shorter one is followed by silence.
        window_seconds: Length of the Hann window.
        hop_seconds: From one frame to the next.
        max_hz: Upper edge of the highest band; bands above half the sampling rate are silent.
    """

    bands: int = 40
    frames: int = 48
    window_seconds: float = 0.032
    hop_seconds: float = 0.016
    max_hz: float = 4000.0

    def __call__(self, signal: Tensor, rate_hz: int) -> Tensor:
        """(T,) in [-1, 1] -> (1, bands, frames): natural log of the mean power in each band, at least ln 1e-8."""
        window, hop = round(self.window_seconds * rate_hz), round(self.hop_seconds * rate_hz)
        needed = window + (self.frames - 1) * hop
        signal = torch.nn.functional.pad(signal[:needed], (0, max(0, needed - len(signal))))
        taper = torch.hann_window(window)
        n_fft = 1 << window.bit_length()  # zero-padded, so that the lowest bands hold a bin each
        frames = signal.unfold(0, window, hop) * taper  # (frames, window)
        power = torch.fft.rfft(frames, n=n_fft).abs().square() / taper.sum().square()
        mel = mel_filters(self.bands, n_fft, rate_hz, self.max_hz) @ power.T
        return torch.log(mel + POWER_FLOOR).unsqueeze(0)


@lru_cache(maxsize=16)
def mel_filters(bands: int, n_fft: int, rate_hz: int, max_hz: float) -> Tensor:
    """Triangles evenly spaced on the mel scale, (bands, n_fft // 2 + 1), each of sum 1, or 0 where it holds no bin.

    Source:
        mel(f) = 2595 log10(1 + f / 700), D. O'Shaughnessy, Speech Communication, 1987.
    """
    hz = torch.arange(n_fft // 2 + 1) * (rate_hz / n_fft)
    top = 2595 * np.log10(1 + max_hz / 700)
    edges = 700 * (10 ** (torch.linspace(0, float(top), bands + 2, dtype=torch.float64) / 2595) - 1)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = torch.minimum((hz - low) / (centre - low), (high - hz) / (high - centre)).clamp_min(0)
    weights: Tensor = triangles / triangles.sum(dim=1, keepdim=True).clamp_min(1e-12)
    return weights.float()
