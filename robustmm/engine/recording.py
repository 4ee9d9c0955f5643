"""What a model made of every sample of a part, kept so that scores of any selection are sums over it."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustmm.errors import CheckpointError
from robustmm.masks import combination_name, presence_of
from robustmm.metrics.metric import Metric
from robustmm.types import Combination

#: Records of samples by name, each (B, ...) or (N, ...); see `robustmm.Task.record`.
Records = Mapping[str, Tensor]
FORMAT = 1
#: What stands for the source of own predictions where there are none.
NO_SOURCE = "none"
#: Between a view's name and a record's name.
MARK = "|"


def combination_view(combination: Combination) -> str:
    """The view in which every sample shows a combination, as far as it has its modalities."""
    return f"combination/{combination_name(combination)}"


def unimodal_view(modality: str) -> str:
    """The view of a modality's own prediction while everything else is there too."""
    return f"unimodal/{modality}"


@dataclass(frozen=True)
class Recording:
    """Records of N samples under several views.

    Args:
        modalities: M, in column order.
        ids: Of the samples.
        observed: (N, M) bool: what the data really have.
        target: (N, ...).
        views: View -> records. A sample that has none of a combination's modalities has records that mean nothing.
        facts: JSON values: what the records were made with, see `same_origin`.
        unimodal_source: Where own predictions come from, see `robustmm.UnimodalLogits`; `NO_SOURCE` where they were
            wanted and cannot be had; None where they were not wanted.
        extra: View -> plugin metrics that have seen its logits, where records are counts; they are not saved.
    """

    modalities: Combination
    ids: tuple[str, ...]
    observed: Tensor
    target: Tensor
    views: Mapping[str, Records]
    facts: Mapping[str, Any]
    unimodal_source: str | None = None
    extra: Mapping[str, Mapping[str, Metric]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def combination(self, combination: Combination) -> Records:
        """Records of a combination."""
        return self.views[combination_view(combination)]

    def shown(self, combination: Combination) -> Tensor:
        """(N, M) bool: what a combination really shows of each sample."""
        return self.observed & presence_of(combination, self.modalities)

    def under(self, mask: Tensor) -> Records:
        """Records of samples that each show a combination of their own.

        Args:
            mask: (N, M) bool, at least one modality in each row.

        Raises:
            CheckpointError: a combination of the mask was not recorded.
        """
        rows, place = torch.unique(mask, dim=0, return_inverse=True)
        found: dict[str, Tensor] = {}
        for number, row in enumerate(rows):
            combination = tuple(name for name, on in zip(self.modalities, row.tolist(), strict=True) if on)
            if combination_view(combination) not in self.views:
                raise CheckpointError(f"no predictions of the combination {combination_name(combination)} are recorded")
            chosen = (place == number).nonzero().squeeze(1)
            for name, values in self.combination(combination).items():
                if name not in found:
                    found[name] = torch.zeros_like(values)
                found[name][chosen] = values[chosen]
        return found

    def with_views(self, other: Recording) -> Recording:
        """The same samples with the views of another recording too."""
        source = other.unimodal_source or self.unimodal_source
        views, extra = {**self.views, **other.views}, {**self.extra, **other.extra}
        return replace(self, views=views, unimodal_source=source, extra=extra)

    def lacks(self, wanted: Iterable[str]) -> list[str]:
        """The wanted views that were not recorded; own predictions that cannot be had are not counted."""
        impossible = unimodal_view("") if self.unimodal_source == NO_SOURCE else None
        absent = [view for view in wanted if view not in self.views]
        return [view for view in absent if impossible is None or not view.startswith(impossible)]

    def same_origin(self, facts: Mapping[str, Any]) -> bool:
        """Whether the records were made with the same weights, data and numbers."""
        return bool(dict(self.facts) == json.loads(json.dumps(facts)))

    def save(self, path: Path) -> None:
        """Write a compressed ``.npz`` without pickle; the same records give the same bytes."""
        header = {
            "format": FORMAT,
            "modalities": self.modalities,
            "facts": self.facts,
            "unimodal_source": self.unimodal_source,
        }
        arrays = {
            "header": np.array(json.dumps(header)),
            "ids": np.array(self.ids, dtype=str),
            "observed": self.observed.numpy(),
            "target": self.target.numpy(),
        }
        for view, records in sorted(self.views.items()):
            arrays |= {f"{view}{MARK}{name}": values.numpy() for name, values in records.items()}
        temporary = path.with_name(f".{path.stem}.tmp.npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(temporary, allow_pickle=False, **arrays)
        os.replace(temporary, path)


def load_recording(path: Path) -> Recording:
    """Read what `Recording.save` wrote.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop("header")))
        ids = tuple(arrays.pop("ids").tolist())
        observed, target = (torch.from_numpy(arrays.pop(name)) for name in ("observed", "target"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); delete it, and it will be made anew") from error
    views: dict[str, dict[str, Tensor]] = {}
    for key, values in arrays.items():
        view, _, name = key.rpartition(MARK)
        views.setdefault(view, {})[name] = torch.from_numpy(values)
    names, facts, source = (header[key] for key in ("modalities", "facts", "unimodal_source"))
    return Recording(tuple(names), ids, observed, target, views, facts, source)


def joined(parts: Sequence[Recording]) -> Recording:
    """Consecutive samples of several recordings with equal views, one after the other."""
    first = parts[0]
    views = {
        view: {name: torch.cat([part.views[view][name] for part in parts]) for name in records}
        for view, records in first.views.items()
    }
    return replace(
        first,
        ids=tuple(name for part in parts for name in part.ids),
        observed=torch.cat([part.observed for part in parts]),
        target=torch.cat([part.target for part in parts]),
        views=views,
    )
