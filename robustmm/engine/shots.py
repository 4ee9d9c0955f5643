"""A few samples with what a model makes of them under every combination, for pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robustmm.data.collate import Collate
from robustmm.data.parts import Part
from robustmm.masks import presence_of
from robustmm.methods.method import Method
from robustmm.methods.probes import logits_by_chunk
from robustmm.metrics.confusion import predicted_class
from robustmm.models.modes import evaluating
from robustmm.types import Combination, Modality, Sample


@dataclass(frozen=True)
class Shot:
    """One sample of dense prediction; everything on the CPU.

    Args:
        position: In its part.
        id: The sample's name.
        inputs: Modality -> (D, H, W) as the data set gave it; an absent modality has no key.
        target: (h, w) int64 at the label's own size.
        predictions: Combination -> (h, w) int16, -1 where the logits were not finite; None where the sample has none
            of the combination's modalities.
    """

    position: int
    id: str
    inputs: Mapping[str, Tensor]
    target: Tensor
    predictions: Mapping[Combination, Tensor | None]


def spread_positions(total: int, count: int) -> list[int]:
    """At most ``count`` different positions of 0..total-1, evenly spaced, away from both ends."""
    chosen = min(count, total)
    return [(2 * place + 1) * total // (2 * chosen) for place in range(chosen)]


def take_shots(
    method: Method,
    part: Part,
    modalities: Sequence[Modality],
    device: torch.device,
    *,
    positions: Sequence[int],
    combinations: Sequence[Combination],
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Iterator[Shot]:
    """Predict a few samples, one at a time: modalities are encoded once and fused anew for each combination.

    Args:
        method: On ``device``.
        part: Where the samples are; without augmentation.
        modalities: Columns of the run.
        device: Where to compute.
        positions: Of the samples in the part.
        combinations: What is shown to the model.
        autocast: Precision context of the run.
    """
    table = torch.stack([presence_of(combo, method.modalities) for combo in combinations])
    collate = Collate(modalities)
    for position in positions:
        _, sample = part[position, 0]
        batch = collate([(position, sample)])
        shown = batch.observed & table[:, None]  # (K, 1, M)
        with evaluating(method), torch.inference_mode(), autocast():
            moved = batch.to(device)
            output = method(moved.inputs, batch.observed, size=method.task.target_size(batch.target))
            chunks = logits_by_chunk(method, moved, output, shown)
            maps = [predicted_class(own)[0].to("cpu", torch.int16) for logits in chunks for own in logits]
        usable = shown.any(dim=2).squeeze(1).tolist()
        yield Shot(
            position,
            sample["id"],
            _known(sample, modalities),
            sample["target"],
            {combo: own if there else None for combo, own, there in zip(combinations, maps, usable, strict=True)},
        )


def _known(sample: Sample, modalities: Sequence[Modality]) -> dict[str, Tensor]:
    inputs = ((modality.name, sample["inputs"].get(modality.name)) for modality in modalities)
    return {name: value for name, value in inputs if value is not None}
