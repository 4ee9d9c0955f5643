"""Scores while modalities of each test sample go missing at a rate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustmm.engine.record import Views
from robustmm.engine.recording import Recording
from robustmm.errors import ConfigError
from robustmm.missing_patterns import PATTERNS, PER_MODALITY, Ground, label_positions, one_modality
from robustmm.protocols.curves import curves
from robustmm.protocols.mask_file import Mask, MaskFile, load_masks
from robustmm.protocols.protocol import Protocol, row_of
from robustmm.seeding import generator_for
from robustmm.types import Combination

#: Where the configuration names a file of masks.
PLACE = "evaluation.missing_rate.masks"
#: Where a run keeps its masks.
MASKS = Path("eval") / "masks.npz"


class MissingRate(Protocol):
    """Every pattern at every rate under several masks; a sample's prediction is that of the combination it shows."""

    name = "missing-rate"

    def views(self) -> Views:
        """See `Protocol.views`."""
        rows = torch.unique(torch.cat([mask.shown for mask in self.masks]), dim=0)
        return Views(sorted((self._combination(row) for row in rows), key=self._order))

    @cached_property
    def masks(self) -> tuple[Mask, ...]:
        """Those of the file that the configuration names, or newly drawn ones."""
        if self._file is None:
            return tuple(self._drawn())
        self._file.require_shape(self.subject.modalities, len(self.subject.assembly.parts.test), PLACE)
        return self._file.masks

    @cached_property
    def _file(self) -> MaskFile | None:
        given = self.subject.assembly.config.evaluation.missing_rate.masks
        return None if given is None else load_masks(Path(given))

    def result(self, recording: Recording) -> dict[str, Any]:
        """See `Protocol.result`; the masks are written beside the results."""
        if self._file is not None:
            self._file.require_ids(recording.ids, PLACE)
        rows = [self._row(recording, mask) for mask in self.masks]
        points = curves(rows, ("pattern", "modality", "rate"))
        return {"rows": rows, "curves": points, "masks": self._written(recording)}

    def _drawn(self) -> Iterator[Mask]:
        section = self.subject.assembly.config.evaluation.missing_rate
        for pattern in section.patterns:
            for modality in self.subject.modalities if pattern == PER_MODALITY else (None,):
                for rate in section.rates:
                    for seed in range(section.seeds):
                        yield Mask(pattern, modality, rate, seed, self._draw(pattern, modality, rate, seed))

    def _draw(self, pattern: str, modality: str | None, rate: float, seed: int) -> Tensor:
        generator = generator_for("masks", pattern, modality or "", str(rate), seed)
        if modality is not None:
            column = self.subject.modalities.index(modality)
            return one_modality(column, self._ground(None), rate, generator)
        position = self._positions(seed) if pattern == "label" else None
        return PATTERNS[pattern](self._ground(position), rate, generator)

    def _ground(self, position: Tensor | None) -> Ground:
        samples = len(self.subject.assembly.parts.test)
        length = self.subject.assembly.config.evaluation.missing_rate.block_length
        return Ground(samples, len(self.subject.modalities), position, length)

    def _positions(self, seed: int) -> Tensor:
        if self.subject.method.task.dense:
            raise ConfigError(
                ["evaluation.missing_rate.patterns: label needs a label for each sample, the target is a map of them"]
            )
        return label_positions(self._labels, generator_for("labels", seed))

    @cached_property
    def _labels(self) -> Tensor:
        return torch.stack(list(self.subject.assembly.parts.test.targets()))

    def _combination(self, row: Tensor) -> Combination:
        return tuple(name for name, on in zip(self.subject.modalities, row.tolist(), strict=True) if on)

    def _order(self, combination: Combination) -> tuple[int, list[int]]:
        return len(combination), [self.subject.modalities.index(name) for name in combination]

    def _row(self, recording: Recording, mask: Mask) -> dict[str, Any]:
        observed = recording.observed
        shown = observed & mask.shown
        tally = self.subject.tally(recording.under(mask.shown), recording.target, shown.any(dim=1))
        place = {"pattern": mask.pattern, "modality": mask.modality, "rate": mask.rate, "seed": mask.seed}
        complete = float((shown == observed).all(dim=1).double().mean())
        realised = self._realised(observed, shown)
        return row_of(tally, **place, realised=realised, complete_share=complete)

    def _realised(self, observed: Tensor, shown: Tensor) -> Mapping[str, float]:
        """Share of what samples have that is hidden, of all modalities and of each."""
        there, hidden = observed.sum(dim=0), (observed & ~shown).sum(dim=0)
        by_name = {
            name: float(hidden[column] / there[column].clamp_min(1))
            for column, name in enumerate(self.subject.modalities)
        }
        return {"overall": float(hidden.sum() / there.sum().clamp_min(1)), **by_name}

    def _written(self, recording: Recording) -> dict[str, Any]:
        kept = MaskFile(recording.modalities, recording.ids, self.masks)
        digest = kept.save(self.subject.folder.path / MASKS)
        return {
            "file": MASKS.as_posix(),
            "sha256": digest,
            "drawn": self._file is None,
            "count": len(self.masks),
            "samples": len(recording),
        }
