"""Samples of a run's test part, where its data set is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from robustmm.build import read_parts
from robustmm.builder import Builder
from robustmm.config.load import load_config
from robustmm.data.collate import Collate
from robustmm.data.parts import Part
from robustmm.engine.run_folder import RunFolder
from robustmm.engine.shots import spread_positions
from robustmm.errors import RobustmmError
from robustmm.registry import Registry
from robustmm.signature import Signature


@dataclass(frozen=True)
class HeldOut:
    """The test part of a run.

    Args:
        part: Its samples; None where they are not there.
        reason: Why not.
    """

    part: Part | None
    reason: str = ""

    def batch(self, signature: Signature, count: int) -> dict[str, Tensor] | None:
        """Some samples, evenly spread, as columns, zeros where one lacks a modality; None where there are none."""
        if self.part is None:
            return None
        positions = spread_positions(len(self.part), count)
        batch = Collate(signature.modalities)([self.part[position, 0] for position in positions])
        columns: Mapping[str, Tensor] = batch.inputs
        return dict(columns)


def held_out(folder: RunFolder, registry: Registry) -> HeldOut:
    """The run's test part; it is no error if its data are not there."""
    try:
        config = load_config([folder.config], [], registry).config
        _, parts = read_parts(config, Builder(registry))
    except RobustmmError as error:
        return HeldOut(None, str(error).splitlines()[0])
    return HeldOut(parts.test)
