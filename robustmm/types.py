"""The nouns that every layer shares: modality, sample, batch, output, loss term, clock.

Shapes: B batch, M modalities, C classes, D channels, H W grid, L levels, R rows (samples, or valid pixels).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, TypedDict

import torch
from torch import Tensor

from robustmm.audio import LogMel

ModalityKind = Literal["vector", "sequence", "image", "spectrogram"]
#: Label of pixels that count nowhere: unlabelled, outside of the picture, or padding.
VOID = 255
#: Names of the present modalities in column order; written ``rgb+depth``.
Combination = tuple[str, ...]
#: A balancer's edit of the features that enter a fusion: (level, features, presence) -> features.
FeatureEdit = Callable[[int, Mapping[str, Tensor], Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Scaling:
    """How a modality's raw values are brought to unit size, inside the model.

    Args:
        mode: ``standardise`` takes mean and deviation from the training part alone (per feature of a vector, per
            channel otherwise), over the samples that have the modality; ``constants`` uses ``mean`` and ``std``;
            ``none`` leaves the values.
        mean: Per feature or channel, in raw units; for ``constants``.
        std: Likewise.
        invalid: Raw value that says "not measured here", such as 0 in a depth map: such positions are 0 once scaled and
            stay out of the statistics. It never says that the modality is missing.
    """

    mode: Literal["standardise", "constants", "none"] = "standardise"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    invalid: float | None = None


@dataclass(frozen=True)
class Reading:
    """How files become a modality's raw values, so that a trained model reads them as its data set did.

    Args:
        pixels: ``stored`` leaves whole numbers of a picture as they are; ``share`` divides them by the largest of
            their type, so that they lie in [0, 1].
        resize: How a map is brought to another size: ``area`` averages where it shrinks and is bilinear where it
            grows; ``bilinear`` is smoothed where it shrinks; ``nearest`` makes up no value.
        recording: What makes a spectrogram of a recording; None where that is not known.
        prepared: What the data set does to pictures or recordings beside, in words. Then they are not read, since they
            would be read wrong, and values are given as arrays; empty where it does nothing more.
    """

    pixels: Literal["stored", "share"] = "stored"
    resize: Literal["area", "bilinear", "nearest"] = "area"
    recording: LogMel | None = None
    prepared: str = ""


@dataclass(frozen=True)
class Modality:
    """What a data set says of one of its modalities.

    Args:
        name: Column name, as in configurations and results.
        kind: ``vector`` (D,), ``sequence`` (D, T), ``image`` or ``spectrogram`` (D, H, W); picks the default encoder.
        shape: Shape of one sample, channels first.
        scaling: See `Scaling`.
        unit: Of the raw values, such as ``mm``; for people, nothing is computed from it.
        reading: See `Reading`.
    """

    name: str
    kind: ModalityKind
    shape: tuple[int, ...]
    scaling: Scaling = Scaling()
    unit: str = ""
    reading: Reading = Reading()


class Sample(TypedDict):
    """What a data set returns for one index. An absent modality's key is missing, or its value is None.

    Args:
        inputs: Modality -> tensor of the modality's shape, raw units; collating makes it float32, so that pictures may
            stay 8-bit until then.
        target: Class index () int64, or a label map (H, W) int64 with `VOID` where no label is; of regression float, ()
            or (T,).
        id: Stable name of the sample.
    """

    inputs: Mapping[str, Tensor | None]
    target: Tensor
    id: str


@dataclass(frozen=True)
class Batch:
    """Collated samples.

    Args:
        inputs: Every modality of the run in column order, each (B, ...), zeros where absent.
        observed: (B, M) bool: what the data really have.
        target: (B,) or (B, H, W) int64; of regression float, (B,) or (B, T).
        ids: Stable names, B of them.
        index: (B,) int64 position of each sample in its part of the data set.
        keep: (B, M) bool: all that a balancer's plan of the epoch lets be shown; None where it withholds nothing.
    """

    inputs: Mapping[str, Tensor]
    observed: Tensor
    target: Tensor
    ids: tuple[str, ...]
    index: Tensor
    keep: Tensor | None = None

    @property
    def offered(self) -> Tensor:
        """(B, M) bool: what may be shown, from which masks are drawn."""
        return self.observed if self.keep is None else self.observed & self.keep

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modality names in column order."""
        return tuple(self.inputs)

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, names: Sequence[str]) -> Batch:
        """The same samples with these modalities alone, in column order; a sample may be left with none."""
        inputs = {name: value for name, value in self.inputs.items() if name in names}
        columns = [name in inputs for name in self.inputs]
        keep = None if self.keep is None else self.keep[:, columns]
        return replace(self, inputs=inputs, observed=self.observed[:, columns], keep=keep)

    def _map(self, move: Callable[[Tensor], Tensor]) -> Batch:
        inputs = {name: move(value) for name, value in self.inputs.items()}
        return replace(self, inputs=inputs, target=move(self.target))

    def to(self, device: torch.device) -> Batch:
        """Inputs and target on ``device``; masks and ``index`` stay on the CPU, where masks are drawn."""
        return self._map(lambda value: value.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Inputs and target in page-locked memory, for copies that overlap with computation."""
        return self._map(Tensor.pin_memory)


class LossTerm(NamedTuple):
    """One summand of the objective.

    Args:
        value: Scalar, already multiplied by its weight.
        role: ``task`` terms may be re-routed or re-weighted by a balancer; ``auxiliary`` (distillation, extra heads)
            and ``regulariser`` terms may not.
    """

    value: Tensor
    role: Literal["task", "auxiliary", "regulariser"]


@dataclass
class Output:
    """What a method's forward pass produced.

    Args:
        logits: (B, C) or (B, C, H, W).
        presence: (B, M) bool on the logits' device: what was shown to the model.
        features: Modality -> levels, as the encoders made them, before the missing policy; rows of an absent modality
            carry no information and may be zero.
        fused: Levels after fusion.
        extras: Whatever the method's own losses need.
        coarser: Logits of the head's side outputs, each (B, C, h, w) at a size of its own; in training alone.
    """

    logits: Tensor
    presence: Tensor
    features: dict[str, list[Tensor]]
    fused: list[Tensor]
    extras: dict[str, Tensor] = field(default_factory=dict)
    coarser: list[Tensor] = field(default_factory=list)

    @property
    def scales(self) -> list[Tensor]:
        """All logits that a loss may supervise, the finest first."""
        return [self.logits, *self.coarser]

    def detached(self) -> Output:
        """The same values without the graph that made them."""
        return Output(
            self.logits.detach(),
            self.presence,
            {name: [level.detach() for level in levels] for name, levels in self.features.items()},
            [level.detach() for level in self.fused],
            {name: value.detach() for name, value in self.extras.items()},
            [logits.detach() for logits in self.coarser],
        )


@dataclass(frozen=True)
class Clock:
    """Where training stands; everything counts from 0.

    Args:
        epoch: Current epoch.
        step: Optimiser steps done since training began.
        epochs: Planned epochs.
        steps_per_epoch: Steps in one epoch.
    """

    epoch: int
    step: int
    epochs: int
    steps_per_epoch: int
