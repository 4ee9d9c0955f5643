"""Images that are given in [0, 1] where the model was trained on far larger values, such as pixels of 8 bits."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from torch import Tensor, nn

from robustmm.models.scaler import Scaler
from robustmm.types import Modality

#: Training values in [0, 1] have mean + 2 deviations of 2 at most; metres of a room hardly exceed this.
FAR_ABOVE_ONE = 10.0
#: Mean + 2 deviations of pixels of 8 bits are this at most: 255 / 2 + 2 * 255 / 2, reached where half of them are 255.
EIGHT_BITS = 383.0


def scalers_of(trunk: nn.Module) -> Mapping[str, Scaler]:
    """Modality -> what scales it, as far as a trunk has such."""
    found = getattr(trunk, "scalers", None)
    if not isinstance(found, nn.ModuleDict):
        return {}
    return {name: scaler for name, scaler in found.items() if isinstance(scaler, Scaler)}


class RangeWatch:
    """Warns, once per modality, of images in [0, 1] where training values were far larger.

    Args:
        scalers: Modality -> what scales it; a modality without one, or whose values are left as they are, is not
            watched.
    """

    def __init__(self, scalers: Mapping[str, Scaler]) -> None:
        self._trained = {
            name: (float(scaler.mean.mean()), float(scaler.std.mean()))
            for name, scaler in scalers.items()
            if scaler.mode != "none"
        }
        self._warned: set[str] = set()

    def look(self, value: Tensor, modality: Modality) -> None:
        """Look at the raw values of one sample, in floating point where they were given so."""
        if modality.kind != "image" or modality.name in self._warned or not value.is_floating_point():
            return
        mean, std = self._trained.get(modality.name, (0.0, 0.0))
        low, high = float(value.min()), float(value.max())
        if mean + 2 * std > FAR_ABOVE_ONE and low >= 0 and 0 < high <= 1:
            self._warned.add(modality.name)
            warnings.warn(_message(modality, (low, high), (mean, std)), stacklevel=2)


def _message(modality: Modality, given: tuple[float, float], trained: tuple[float, float]) -> str:
    unit = f" (unit {modality.unit})" if modality.unit else ""
    repair = (
        "give pixels of 8 bits, or multiply by 255" if sum(trained) + trained[1] <= EIGHT_BITS else "give raw values"
    )
    return (
        f"{modality.name}: values lie in {given[0]:.3g} to {given[1]:.3g}; the model was trained on values of mean "
        f"{trained[0]:.4g} and deviation {trained[1]:.4g}{unit}; {repair}"
    )
