"""Views in which raw values of some modalities are changed sample by sample, with draws that no batch size touches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from robustmm.corruption import Spread
from robustmm.data.parts import Parts
from robustmm.engine.shots import spread_positions
from robustmm.types import Batch, Modality

#: Training samples from which the spread of raw values is taken, evenly spaced.
SPREAD_SAMPLES = 256
#: Numbers in a sample from which on a thread of its own pays.
WORTH_A_THREAD = 1 << 14
#: What 8-bit pictures hold.
EIGHT_BITS = (0.0, 255.0)


def altered(batch: Batch, changes: Mapping[str, Callable[[Tensor, int], Tensor]]) -> dict[str, Tensor]:
    """Raw values of some modalities of a batch after a change of each sample that has them.

    Large values are changed in several threads: libraries and torch let others run while they work on pictures.

    Args:
        batch: On the CPU.
        changes: Modality -> function of a sample's value and its row in the batch; the same in any order.
    """
    found = {}
    for name, change in changes.items():
        given = batch.inputs[name]
        rows = batch.observed[:, batch.modalities.index(name)].nonzero().flatten().tolist()
        values = given.clone()
        if given[:1].numel() < WORTH_A_THREAD or torch.get_num_threads() == 1:
            for row in rows:
                values[row] = change(given[row], row)
        else:
            with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                for row, value in zip(rows, pool.map(change, given[rows], rows), strict=True):
                    values[row] = value
        found[name] = values
    return found


def digest_of(settings: Any) -> str:
    """A short name of JSON values, so that records made with other settings are not taken for these."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def spreads_of(parts: Parts) -> dict[str, Spread]:
    """What raw values of each modality look like in the training part; of 8-bit pictures the whole range."""
    train = parts.train.without_augmentation()
    positions = spread_positions(len(train), SPREAD_SAMPLES)
    samples = [train[position, 0][1]["inputs"] for position in positions]
    return {modality.name: _spread(modality, samples) for modality in parts.modalities}


def _spread(modality: Modality, samples: list[Mapping[str, Tensor | None]]) -> Spread:
    values = [value for sample in samples if (value := sample.get(modality.name)) is not None]
    if not values:
        channels = modality.shape[0]
        return Spread(0.0, 1.0, (0.0,) * channels, (1.0,) * channels)
    spread = Spread.of(torch.stack([value.float() for value in values]), modality.scaling.invalid)
    low, high = EIGHT_BITS if values[0].dtype == torch.uint8 else (spread.low, spread.high)
    return Spread(low, high, spread.mean, spread.std)
