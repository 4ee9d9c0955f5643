"""WAV files made of whole numbers."""

from __future__ import annotations

import io
import wave

import numpy as np


def wav_bytes(samples: np.ndarray, rate: int = 8000, width: int = 2) -> bytes:
    """A WAV file from whole numbers, ``(T,)`` or ``(T, channels)``."""
    columns = samples if samples.ndim == 2 else samples[:, None]
    raw = columns.astype("<i4").tobytes()
    pieces = np.frombuffer(raw, np.uint8).reshape(-1, 4)[:, :width]
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as writer:
        writer.setparams((columns.shape[1], width, rate, 0, "NONE", ""))
        writer.writeframes(pieces.tobytes())
    return buffer.getvalue()
