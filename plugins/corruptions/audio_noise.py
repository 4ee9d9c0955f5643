"""Noise of a given signal-to-noise ratio."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from robustmm import Component, Options, hookimpl

from ._levels import Levelled, mean_of_valid
from ._pictures import normal_like

SMALLEST = torch.finfo(torch.float32).tiny


class AudioNoiseOptions(Options):
    """Options of noise by its ratio to the signal."""

    levels: tuple[float, float, float, float, float] = Field(
        (20.0, 15.0, 10.0, 5.0, 0.0), description="signal-to-noise ratio in dB in each severity"
    )


class AudioNoise(Levelled):
    """White Gaussian noise whose power is that of the sample's own channel, less the ratio.

    The power of signal and noise is the mean square of a channel's valid values, of the signal about its mean, which
    sound does not have but acceleration and spectrograms do. The ratio of each sample is exact, not expected. A channel
    that does not vary has no power, and stays.
    """

    def at_level(self, value: Tensor, level: float, generator: torch.Generator) -> Tensor:
        """See `Levelled.at_level`."""
        valid = self.valid(value)
        noise = normal_like(value, generator)
        signal = mean_of_valid((value - mean_of_valid(value, valid)).square(), valid)
        gain = (signal / mean_of_valid(noise.square(), valid).clamp_min(SMALLEST)).sqrt()
        return value + 10 ** (-level / 20) * gain * noise


@hookimpl
def robustmm_register_corruptions(register: Callable[[Component], None]) -> None:
    """Offer noise by its ratio to the signal."""
    register(
        Component(
            "audio_noise",
            AudioNoise,
            AudioNoiseOptions,
            "White noise of a given signal-to-noise ratio, for sound and other signals over time.",
            "ratios of Hirsch and Pearce, ISCA ASR 2000 (Aurora-2); noise as standard",
            suits=frozenset({"sequence", "spectrogram"}),
        )
    )
