"""Masks of a part in a file, so that other runs can be measured under the very same ones."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robustmm.errors import CheckpointError, ConfigError

FORMAT = 1
#: Samples named in a message.
NAMED = 3


@dataclass(frozen=True)
class Mask:
    """One mask and where it stands.

    Args:
        pattern: See `robustmm.missing_patterns`.
        modality: The one that fails, of pattern per_modality; None of the others.
        rate: The wanted missing rate.
        seed: Number of the draw.
        shown: (N, M) bool, at least one modality in each row.
    """

    pattern: str
    modality: str | None
    rate: float
    seed: int
    shown: Tensor


@dataclass(frozen=True)
class MaskFile:
    """Masks over the samples of a part.

    Args:
        modalities: M, in column order.
        ids: Of the N samples, in order.
        masks: In order.
    """

    modalities: tuple[str, ...]
    ids: tuple[str, ...]
    masks: tuple[Mask, ...]

    def save(self, path: Path) -> str:
        """Write an ``.npz`` without pickle; equal masks give equal bytes. Returns their sha256."""
        places = [[mask.pattern, mask.modality, mask.rate, mask.seed] for mask in self.masks]
        header = {"format": FORMAT, "modalities": self.modalities, "places": places}
        bits = np.packbits(torch.stack([mask.shown for mask in self.masks]).flatten(1).numpy(), axis=1)
        temporary = path.with_name(f".{path.stem}.tmp.npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {"header": np.array(json.dumps(header)), "ids": np.array(self.ids, dtype=str), "shown": bits}
        np.savez_compressed(temporary, allow_pickle=False, **arrays)
        os.replace(temporary, path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def require_shape(self, modalities: Sequence[str], samples: int, place: str) -> None:
        """Make sure that the masks are of these modalities and of as many samples.

        Raises:
            ConfigError: they are not.
        """
        if self.modalities != tuple(modalities):
            given, own = ", ".join(self.modalities), ", ".join(modalities)
            raise ConfigError([f"{place}: the masks are of the modalities {given}, the run has {own}"])
        if len(self.ids) != samples:
            raise ConfigError(
                [f"{place}: the masks are of {len(self.ids)} samples, the part has {samples}; draw new masks"]
            )

    def require_ids(self, ids: Sequence[str], place: str) -> None:
        """Make sure that the masks are of these samples in this order.

        Raises:
            ConfigError: they are not.
        """
        if self.ids != tuple(ids):
            only = [name for name in self.ids if name not in set(ids)][:NAMED]
            what = f"other samples, such as {', '.join(only)}" if only else "the same samples in another order"
            raise ConfigError([f"{place}: the masks are of {what}; draw new masks"])


def load_masks(path: Path) -> MaskFile:
    """Read what `MaskFile.save` wrote.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            header, ids, bits = json.loads(str(file["header"])), tuple(file["ids"].tolist()), file["shown"]
        shape = (len(ids), len(header["modalities"]))
        flat = np.unpackbits(bits, axis=1, count=shape[0] * shape[1]).astype(bool)
        places = zip(header["places"], torch.from_numpy(flat), strict=True)
        masks = tuple(
            Mask(pattern, modality, rate, seed, shown.view(shape)) for (pattern, modality, rate, seed), shown in places
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} cannot be read as a mask file: {error}") from error
    return MaskFile(tuple(header["modalities"]), ids, masks)
