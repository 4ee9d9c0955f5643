"""Raw values to unit size, inside the model, so that a saved model takes raw inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustmm.errors import ShapeError
from robustmm.types import Modality

#: Features that hardly vary are not blown up: deviations below this share of the mean's size count as constant.
CONSTANT_SHARE = 1e-6
#: So many values are taken to float64 at once, where a sample is not larger; batches of maps would need gigabytes.
AT_ONCE = 1 << 22


class Scaler(nn.Module):
    """``(x - mean) / std`` per feature of a vector, or per channel otherwise.

    The statistics are buffers: they travel with the weights and are set by `set` or by the data set's constants. Values
    that say "not measured" become 0, the mean of what was measured.

    Raises:
        ShapeError: constants of another number than features or channels, or deviations of 0 or below.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        self.mode = modality.scaling.mode
        self.invalid = modality.scaling.invalid
        size = modality.shape[0]
        if self.mode == "constants":
            _check_constants(modality)
        mean = torch.tensor(modality.scaling.mean) if self.mode == "constants" else torch.zeros(size)
        std = torch.tensor(modality.scaling.std) if self.mode == "constants" else torch.ones(size)
        shape = (size, *[1] * (len(modality.shape) - 1))
        self.register_buffer("mean", mean.view(shape))
        self.register_buffer("std", std.view(shape))

    @property
    def needs_fit(self) -> bool:
        """Whether the statistics come from training data."""
        return self.mode == "standardise"

    def set(self, mean: Tensor, variance: Tensor) -> None:
        """Take statistics, each of the size of the features or channels; constant features keep deviation 1."""
        std = variance.clamp_min(0).sqrt()
        constant = std <= CONSTANT_SHARE * mean.abs().clamp_min(1e-12)
        self.mean.copy_(mean.view_as(self.mean))
        self.std.copy_(torch.where(constant, torch.ones_like(std), std).view_as(self.std))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, ...) raw -> scaled."""
        scaled = x if self.mode == "none" else (x - self.mean) / self.std
        return scaled if self.invalid is None else scaled.masked_fill(x == self.invalid, 0.0)


def _check_constants(modality: Modality) -> None:
    mean, std = modality.scaling.mean, modality.scaling.std
    if not len(mean) == len(std) == modality.shape[0]:
        raise ShapeError(
            f"modality '{modality.name}': scaling needs {modality.shape[0]} means and {modality.shape[0]} deviations "
            f"(one per feature or channel), got {len(mean)} and {len(std)}"
        )
    if min(std) <= 0:
        raise ShapeError(f"modality '{modality.name}': scaling deviations must be above 0, got {std}")


class Moments:
    """Streaming mean and variance per feature or channel, in float64.

    Args:
        invalid: Value that is left out, see `robustmm.Scaling`.
    """

    def __init__(self, invalid: float | None = None) -> None:
        self.invalid = invalid
        self.counts: Tensor = torch.zeros(())
        self.mean: Tensor = torch.zeros(())
        self.squares: Tensor = torch.zeros(())

    @property
    def count(self) -> int:
        """Values seen, of the feature or channel that has most."""
        return int(self.counts.max())

    def update(self, x: Tensor) -> None:
        """Add samples (B, D, ...)."""
        if x.numel():
            for part in x.split(max(AT_ONCE // x[0].numel(), 1)):  # type: ignore[no-untyped-call]  # untyped in torch
                self._add(part)

    def _add(self, x: Tensor) -> None:
        rows = x.double().transpose(0, 1).flatten(1)  # (D, values)
        valid = torch.ones_like(rows) if self.invalid is None else (rows != self.invalid).double()
        added = valid.sum(dim=1)
        known = added.clamp_min(1)
        mean = (rows * valid).sum(dim=1) / known
        squares = ((rows - mean[:, None]).square() * valid).sum(dim=1)
        counts = self.counts + added
        share = added / counts.clamp_min(1)
        delta = mean - self.mean
        self.squares = self.squares + squares + delta**2 * self.counts * share
        self.mean = self.mean + delta * share
        self.counts = counts

    def result(self) -> tuple[Tensor, Tensor]:
        """Mean and variance, float32, each (D,)."""
        return self.mean.float(), (self.squares / self.counts.clamp_min(1)).float()
