"""Models and data of a few numbers, for classes, label maps and quantities, on which contracts are checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from robustmm.masks import all_combinations, presence_of, where_present
from robustmm.methods.method import Blueprint
from robustmm.models.encoder import Encoder
from robustmm.models.fusion import Fusion, NoFusion
from robustmm.models.head import Head
from robustmm.models.missing import MissingPolicy
from robustmm.models.trunk import Features, LateTrunk, Trunk
from robustmm.registry import Component
from robustmm.tasks.classification import ClassificationTask
from robustmm.tasks.regression import RegressionTask
from robustmm.tasks.segmentation import SegmentationTask
from robustmm.tasks.task import Task
from robustmm.types import Batch, Clock, FeatureEdit, Modality, Scaling

#: Modalities of every contract test, in column order; a test takes the first one to four.
NAMES = ("m0", "m1", "m2", "m3")
CLASSES = ("first", "second", "third")
#: Mean and deviation of the targets of regression: of another size than the logits.
TARGET_MEAN, TARGET_DEVIATION = 20.0, 3.0
#: Samples in a batch: one for each of the 15 combinations of four modalities, and one more.
SIZE = 16
WIDTH = 4
VECTOR = 5
CHANNELS = 2
GRID = (4, 6)


@dataclass(frozen=True)
class Setting:
    """A number of modalities, and global prediction, dense prediction, or regression of some quantities."""

    count: int
    dense: bool = False
    quantities: int = 0

    def __str__(self) -> str:
        form = f"regression of {self.quantities}" if self.quantities else "dense" if self.dense else "global"
        return f"M = {self.count}, {form}{'' if self.quantities else ' prediction'}"

    @property
    def names(self) -> tuple[str, ...]:
        """Modalities in column order."""
        return NAMES[: self.count]

    @property
    def size(self) -> tuple[int, ...]:
        """Spatial size of a target."""
        return GRID if self.dense else ()

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Descriptions in column order."""
        shape = (CHANNELS, *GRID) if self.dense else (VECTOR,)
        return tuple(Modality(name, "image" if self.dense else "vector", shape, Scaling("none")) for name in self.names)

    @property
    def outputs(self) -> int:
        """Classes, or quantities of regression."""
        return self.quantities or len(CLASSES)

    def task(self) -> Task:
        """Classification, a class for every pixel, or regression with the unit of its targets."""
        if not self.quantities:
            return SegmentationTask(CLASSES) if self.dense else ClassificationTask(CLASSES)
        task = RegressionTask(CLASSES[: self.quantities])
        task.fit(batch(self).target)
        return task

    def targets(self, size: int, generator: torch.Generator) -> Tensor:
        """Labels (B,) or (B, H, W), or quantities (B,) or (B, T)."""
        if not self.quantities:
            return torch.randint(len(CLASSES), (size, *self.size), generator=generator)
        shape = (size, self.quantities) if self.quantities > 1 else (size,)
        return TARGET_MEAN + TARGET_DEVIATION * torch.randn(shape, generator=generator)

    def signal(self, target: Tensor) -> Tensor:
        """What inputs tell of targets, of unit size, to be added to (B, ...)."""
        if self.dense:
            return target[:, None]
        own = (target.view(len(target), -1)[:, 0] - TARGET_MEAN) / TARGET_DEVIATION if self.quantities else target
        return own.view(-1, *[1] * len(self.modalities[0].shape))


def settings(component: Component, counts: Sequence[int] = (1, 2, 3, 4)) -> Iterator[Setting]:
    """Where a component must work: global prediction, and dense prediction with at most two modalities.

    A component that requires or refuses one of the capabilities ``task:classification`` and ``task:segmentation`` is
    spared the other setting. One that requires ``task:regression`` is tested on that alone, of one quantity and, with
    at most two modalities, of two.
    """
    if "task:regression" in component.requires:
        yield from (Setting(count, quantities=1) for count in counts)
        yield from (Setting(count, quantities=2) for count in counts if count <= 2)
        return
    dense_only = "task:segmentation" in component.requires or "task:classification" in component.conflicts
    global_only = "task:classification" in component.requires or "task:segmentation" in component.conflicts
    if not dense_only:
        yield from (Setting(count) for count in counts)
    if not global_only:
        yield from (Setting(count, dense=True) for count in counts if count <= 2)


class ConcatFusion(Fusion):
    """Features side by side, so that a linear head behind it gives exact unimodal logits."""

    def forward(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> Tensor:
        """See `Fusion.forward`."""
        return torch.cat(list(features.values()), dim=1)

    def summands(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> dict[str, Tensor]:
        """Each modality's block with zeros for all others."""
        return {
            name: torch.cat([f if other == name else torch.zeros_like(f) for other, f in features.items()], dim=1)
            for name in features
        }


class LinearHead(Head):
    """One linear layer on the last level; on maps one prediction per position, resized to the target."""

    def __init__(self, channels: Sequence[int], num_outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels[-1], num_outputs)

    def forward(self, fused: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
        """See `Head.forward`."""
        logits: Tensor = self.linear(fused[-1].movedim(1, -1)).movedim(-1, 1)
        return interpolate(logits, size=size, mode="bilinear") if size else logits

    def linear_part(self, fused: Sequence[Tensor], bias_share: Tensor) -> Tensor | None:
        """``W f_m + b / k``; None on maps, which are resized."""
        if fused[-1].dim() != 2:
            return None
        return fused[-1] @ self.linear.weight.T + bias_share[:, None] * self.linear.bias


class DenseTrunk(Trunk):
    """Two convolution stages per modality, summed level by level; the second level has half the resolution."""

    def __init__(self, modalities: Sequence[Modality], *, fused: bool = True, norm: bool = True) -> None:
        super().__init__()
        self.modalities = tuple(modality.name for modality in modalities)
        self.fused_channels = (WIDTH, WIDTH) if fused else ()
        self.feature_channels = dict.fromkeys(self.modalities, (WIDTH, WIDTH))
        self.encoders = nn.ModuleDict({name: _map_encoder(norm) for name in self.modalities})

    def forward(
        self, inputs: Mapping[str, Tensor], presence: Tensor, edit: FeatureEdit | None = None
    ) -> tuple[Features, list[Tensor]]:
        """See `Trunk.forward`."""
        features = {name: self.encoders[name](inputs[name]) for name in self.modalities}
        return features, self._fuse(features, presence, edit)

    def _fuse(self, features: Features, presence: Tensor, edit: FeatureEdit | None) -> list[Tensor]:
        levels = []
        for level in range(len(self.fused_channels)):
            shown: Mapping[str, Tensor] = {
                name: where_present(own[level], presence[:, column], own[level].new_zeros(()))
                for column, (name, own) in enumerate(features.items())
            }
            shown = shown if edit is None else edit(level, shown, presence)
            levels.append(torch.stack(list(shown.values())).sum(dim=0))
        return levels

    def refuse(self, features: Features, presence: Tensor) -> list[Tensor]:
        """See `Trunk.refuse`."""
        return self._fuse(features, presence, None)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Each modality owns its encoder."""
        return {name: list(encoder.parameters()) for name, encoder in self.encoders.items()}


def _map_encoder(norm: bool) -> Encoder:
    between = nn.BatchNorm2d(WIDTH) if norm else nn.Identity()
    first = nn.Sequential(nn.Conv2d(CHANNELS, WIDTH, 3, padding=1), between, nn.Tanh())
    second = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1, stride=2), nn.Tanh())
    return Encoder(nn.ModuleList([first, second]), (WIDTH, WIDTH), (1, 2))


def vector_encoder(width: int = WIDTH, *, norm: bool = True) -> Encoder:
    """Two layers, with BatchNorm between them unless ``norm`` is False, without dropout."""
    between = nn.BatchNorm1d(6) if norm else nn.Identity()
    layers = nn.Sequential(nn.Linear(VECTOR, 6), between, nn.Tanh(), nn.Linear(6, width), nn.Tanh())
    return Encoder(nn.ModuleList([layers]), (width,), (0,))


def late_trunk(modalities: Sequence[Modality], *, fused: bool = True, norm: bool = True) -> LateTrunk:
    """An encoder per modality, features side by side, zero features for what is absent."""
    encoders = {modality.name: vector_encoder(norm=norm) for modality in modalities}
    fusion = ConcatFusion((WIDTH * len(modalities),)) if fused else NoFusion()
    return LateTrunk(modalities, encoders, fusion, MissingPolicy())


def blueprint(setting: Setting, *, names: Sequence[str] | None = None, norm: bool = True) -> Blueprint:
    """Parts for a method.

    Args:
        setting: Number of modalities, and what is predicted.
        names: Another order of the columns.
        norm: Whether encoders have BatchNorm, which couples the samples of a batch.
    """
    known = {modality.name: modality for modality in setting.modalities}
    modalities = tuple(known[name] for name in names or setting.names)
    task = setting.task()

    def make_trunk(*, only: Sequence[str] | None = None, fused: bool = True) -> Trunk:
        chosen = tuple(modality for modality in modalities if only is None or modality.name in only)
        if setting.dense:
            return DenseTrunk(chosen, fused=fused, norm=norm)
        return late_trunk(chosen, fused=fused, norm=norm)

    def make_head(channels: tuple[int, ...], outputs: int | None = None) -> LinearHead:
        return LinearHead(channels, task.num_outputs if outputs is None else outputs)

    return Blueprint(modalities, task, make_trunk, make_head, samples=SIZE)


def batch(setting: Setting, *, seed: int = 0, size: int = SIZE, names: Sequence[str] | None = None) -> Batch:
    """Inputs in which every modality tells something of the target; everything is observed."""
    generator = torch.Generator().manual_seed(seed)
    target = setting.targets(size, generator)
    inputs = {}
    for modality in setting.modalities:
        noise = torch.randn(size, *modality.shape, generator=generator)
        inputs[modality.name] = noise + setting.signal(target)
    ordered = {name: inputs[name] for name in names or setting.names}
    observed = torch.ones(size, setting.count, dtype=torch.bool)
    return Batch(ordered, observed, target, tuple(f"sample_{row}" for row in range(size)), torch.arange(size))


def mixed_presence(count: int, size: int = SIZE) -> Tensor:
    """(B, M) bool in which the samples go through all combinations in turn, the complete one first."""
    combinations = all_combinations(NAMES[:count])[::-1]
    rows = [presence_of(combinations[row % len(combinations)], NAMES[:count]) for row in range(size)]
    return torch.stack(rows)


def clock(epoch: int = 0, step: int = 0, *, epochs: int = 12, steps_per_epoch: int = 2) -> Clock:
    """A place in a short run."""
    return Clock(epoch=epoch, step=step, epochs=epochs, steps_per_epoch=steps_per_epoch)
