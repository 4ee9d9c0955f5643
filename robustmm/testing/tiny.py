"""Models and data of a few numbers, global and dense, on which contracts are checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from robustmm.masks import all_combinations, presence_of, where_present
from robustmm.methods.method import Blueprint
from robustmm.models.encoder import Encoder
from robustmm.models.fusion import Fusion
from robustmm.models.head import Head
from robustmm.models.missing import MissingPolicy
from robustmm.models.trunk import Features, LateTrunk, Trunk
from robustmm.registry import Component
from robustmm.tasks.classification import ClassificationTask
from robustmm.tasks.segmentation import SegmentationTask
from robustmm.tasks.task import Task
from robustmm.types import Batch, Clock, FeatureEdit, Modality, Scaling

#: Modalities of every contract test, in column order; a test takes the first one to four.
NAMES = ("m0", "m1", "m2", "m3")
CLASSES = ("first", "second", "third")
#: Samples in a batch: one for each of the 15 combinations of four modalities, and one more.
SIZE = 16
WIDTH = 4
VECTOR = 5
CHANNELS = 2
GRID = (4, 6)


@dataclass(frozen=True)
class Setting:
    """A number of modalities, and global or dense prediction."""

    count: int
    dense: bool = False

    def __str__(self) -> str:
        return f"M = {self.count}, {'dense' if self.dense else 'global'} prediction"

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

    def task(self) -> Task:
        """Classification, or a class for every pixel."""
        return SegmentationTask(CLASSES) if self.dense else ClassificationTask(CLASSES)


def settings(component: Component, counts: Sequence[int] = (1, 2, 3, 4)) -> Iterator[Setting]:
    """Where a component must work: global prediction, and dense prediction with at most two modalities.

    A component that requires or refuses one of the capabilities ``task:classification`` and ``task:segmentation`` is
    spared the other setting.
    """
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

    def __init__(self, modalities: Sequence[Modality]) -> None:
        super().__init__()
        self.modalities = tuple(modality.name for modality in modalities)
        self.fused_channels = (WIDTH, WIDTH)
        self.encoders = nn.ModuleDict({name: _map_encoder() for name in self.modalities})

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


def _map_encoder() -> Encoder:
    first = nn.Sequential(nn.Conv2d(CHANNELS, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), nn.Tanh())
    second = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1, stride=2), nn.Tanh())
    return Encoder(nn.ModuleList([first, second]), (WIDTH, WIDTH), (1, 2))


def vector_encoder(width: int = WIDTH) -> Encoder:
    """Two layers with BatchNorm between them, without dropout."""
    layers = nn.Sequential(nn.Linear(VECTOR, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, width), nn.Tanh())
    return Encoder(nn.ModuleList([layers]), (width,), (0,))


def late_trunk(modalities: Sequence[Modality]) -> LateTrunk:
    """An encoder per modality, features side by side, zero features for what is absent."""
    encoders = {modality.name: vector_encoder() for modality in modalities}
    return LateTrunk(modalities, encoders, ConcatFusion((WIDTH * len(modalities),)), MissingPolicy())


def blueprint(setting: Setting, *, names: Sequence[str] | None = None) -> Blueprint:
    """Parts for a method.

    Args:
        setting: Number of modalities, and global or dense.
        names: Another order of the columns.
    """
    known = {modality.name: modality for modality in setting.modalities}
    modalities = tuple(known[name] for name in names or setting.names)
    task = setting.task()

    def make_trunk() -> Trunk:
        return DenseTrunk(modalities) if setting.dense else late_trunk(modalities)

    return Blueprint(modalities, task, make_trunk, lambda channels: LinearHead(channels, task.num_outputs))


def batch(setting: Setting, *, seed: int = 0, size: int = SIZE, names: Sequence[str] | None = None) -> Batch:
    """Inputs in which every modality tells something of the label; everything is observed."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(len(CLASSES), (size, *setting.size), generator=generator)
    inputs = {}
    for modality in setting.modalities:
        noise = torch.randn(size, *modality.shape, generator=generator)
        signal = target[:, None] if setting.dense else target.view(-1, *[1] * len(modality.shape))
        inputs[modality.name] = noise + signal
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
