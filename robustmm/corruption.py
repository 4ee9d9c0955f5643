"""The contract of a corruption: how one modality's values break at test time, in five severities."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustmm.errors import ConfigError, DataError, ShapeError
from robustmm.registry import Component
from robustmm.types import Modality

#: From hardly visible to hard; what each means is a constant of the corruption.
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Spread:
    """What a modality's raw values look like, measured on the training part; 0 to 255 for 8-bit pictures.

    Values that say "not measured" (`robustmm.Scaling.invalid`) are left out.

    Args:
        low: Smallest value.
        high: Largest value.
        mean: Per feature of a vector, or per channel otherwise.
        std: Deviation, likewise.
    """

    low: float
    high: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, values: Tensor, invalid: float | None = None) -> Spread:
        """The spread of samples (B, D, ...); a feature without any valid value has mean and deviation 0.

        Raises:
            DataError: no value is valid.
        """
        rows = values.double().transpose(0, 1).flatten(1)  # (D, values)
        valid = torch.ones_like(rows).bool() if invalid is None else rows != invalid
        if not valid.any():
            raise DataError(f"no value is valid: all {rows.numel()} are {invalid}, which says 'not measured'")
        count = valid.sum(dim=1).clamp_min(1)
        mean = (rows * valid).sum(dim=1) / count
        squares = ((rows - mean[:, None]) * valid).square().sum(dim=1)
        inside = rows[valid]
        std = (squares / count).sqrt()
        return cls(float(inside.min()), float(inside.max()), tuple(mean.tolist()), tuple(std.tolist()))


class Corruption(ABC):
    """One way in which a modality's values break, made for one modality.

    A subclass writes `corrupt` and, where it does not fit every modality of the kinds that its component suits,
    `reason_against`. Its component is built with ``modality`` and ``spread`` beside the options.

    Args:
        modality: Whose values are given.
        spread: What these look like.

    Raises:
        ConfigError: it does not fit the modality.
        ShapeError: the spread is of another number of features or channels.

    Attributes:
        needs_other: Whether `other` must be given: the same modality of another sample, of another class where there
            are classes.
        keeps_places: Whether each value of the result stands where it stood. Then what was not measured
            (`robustmm.Scaling.invalid`) stays so, whatever `corrupt` says of it.
    """

    needs_other: bool = False
    keeps_places: bool = True

    def __init__(self, modality: Modality, spread: Spread) -> None:
        self.modality = modality
        self.spread = spread
        reason = self.reason_against(modality)
        if reason is not None:
            raise ConfigError([f"{self._place}: {reason}"])
        channels = modality.shape[0]
        if not len(spread.mean) == len(spread.std) == channels:
            raise ShapeError(
                f"{self._place}: its spread needs {channels} means and deviations, one per feature or channel, "
                f"got {len(spread.mean)} and {len(spread.std)}"
            )

    @classmethod
    def reason_against(cls, modality: Modality) -> str | None:
        """Why it does not fit a modality of a kind that it suits, as "it needs ..."; None where it fits."""
        return None

    @abstractmethod
    def corrupt(self, value: Tensor, severity: int, generator: torch.Generator, other: Tensor | None) -> Tensor:
        """See `__call__`, which checks the arguments first."""

    def __call__(self, value: Tensor, severity: int, generator: torch.Generator, other: Tensor | None = None) -> Tensor:
        """One sample, broken.

        Args:
            value: Raw values of the modality's shape, float32, on the CPU; not changed.
            severity: 1 to 5.
            generator: All randomness comes from it, so that neither batch size nor order plays a part.
            other: See `needs_other`; not read otherwise.

        Returns:
            The same shape and dtype, finite.

        Raises:
            ConfigError: no such severity.
            ShapeError: a value is not of the modality's shape.
            DataError: `other` is needed and not given.
        """
        if severity not in SEVERITIES:
            raise ConfigError([f"{self._place}: severity must be one of 1, 2, 3, 4, 5, not {severity!r}"])
        if self.needs_other and other is None:
            raise DataError(f"{self._place}: it needs the value of another sample, as 'other'")
        for given in (value, other if self.needs_other else None):
            if given is not None and tuple(given.shape) != self.modality.shape:
                raise ShapeError(f"{self._place}: expected shape {self.modality.shape}, got {tuple(given.shape)}")
        broken = self.corrupt(value, severity, generator, other if self.needs_other else None)
        return torch.where(self.valid(value), broken, value) if self.keeps_places else broken

    def valid(self, value: Tensor) -> Tensor:
        """Where something was measured, bool of the value's shape."""
        invalid = self.modality.scaling.invalid
        return torch.ones_like(value, dtype=torch.bool) if invalid is None else value != invalid

    def per_channel(self, numbers: Sequence[float]) -> Tensor:
        """Numbers of the features or channels, as a tensor (D, 1, ...) that goes with a value."""
        return torch.tensor(numbers).view(-1, *[1] * (len(self.modality.shape) - 1))

    @property
    def _place(self) -> str:
        return f"corruption {type(self).__name__} of modality '{self.modality.name}'"


def misfit(component: Component, modality: Modality) -> str | None:
    """Why a corruption's component does not fit a modality, as "it needs ..."; None where it fits."""
    if component.suits and modality.kind not in component.suits:
        return f"it is for {' or '.join(sorted(component.suits))}, not {modality.kind}"
    ask = getattr(component.build, "reason_against", None)
    reason: str | None = None if ask is None else ask(modality)
    return reason
