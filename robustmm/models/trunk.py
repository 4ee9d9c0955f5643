"""From inputs to fused features: encoders, missing policy, fusion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustmm.masks import where_present
from robustmm.models.encoder import Encoder, pooled
from robustmm.models.fusion import Fusion
from robustmm.models.missing import MissingPolicy
from robustmm.models.rows import RowRunner, refuse_other_sizes, rows_to_run
from robustmm.models.scaler import Scaler
from robustmm.types import FeatureEdit, Modality

Features = dict[str, list[Tensor]]
#: Channels by modality and level.
Channels = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class TrunkParts:
    """What a trunk is made of: fresh parts of the configured kinds, as many as it needs.

    Args:
        modalities: In column order.
        dense: Whether the task predicts a map; then every level is fused, else one vector per modality.
        make_encoder: A new encoder of the modality with this name.
        make_fusion: A new fusion for features with these channels.
        make_policy: A new missing policy for features with these channels.
        skip_absent: See `LateTrunk`.
    """

    modalities: tuple[Modality, ...]
    dense: bool
    make_encoder: Callable[[str], Encoder]
    make_fusion: Callable[[Channels], Fusion]
    make_policy: Callable[[Channels], MissingPolicy]
    skip_absent: bool = True


class Trunk(nn.Module):
    """From inputs and presence to features per modality and fused levels.

    Attributes:
        modalities: In column order.
        fused_channels: Channels of the fused levels, which go from the finest to the coarsest; () where nothing is
            fused.
        feature_channels: Modality -> channels of the levels that its encoder gives.
        scalers: Modality -> `Scaler`; a trunk scales its inputs itself, so that a saved model takes raw values.
        not_exportable: Why no graph can be made of what it computes; empty where one can.
    """

    not_exportable: ClassVar[str] = ""
    modalities: tuple[str, ...]
    fused_channels: tuple[int, ...]
    feature_channels: Mapping[str, tuple[int, ...]]
    scalers: nn.ModuleDict

    def forward(
        self, inputs: Mapping[str, Tensor], presence: Tensor, edit: FeatureEdit | None = None
    ) -> tuple[Features, list[Tensor]]:
        """Encode and fuse.

        Args:
            inputs: Modality -> (B, ...), raw.
            presence: (B, M) bool. It may lie on the CPU while the inputs are on a GPU: rows to skip are then found
                without waiting for the GPU.
            edit: A balancer's edit of what enters each fusion.

        Returns:
            Features per modality and level before the missing policy, and the fused levels.
        """
        raise TypeError(f"{type(self).__name__} must define forward(inputs, presence, edit)")

    def refuse(self, features: Features, presence: Tensor) -> list[Tensor] | None:
        """Fused levels again for another presence, without encoding; None where that is impossible."""
        return None

    def reencode(self, features: Features, inputs: Mapping[str, Tensor], presence: Tensor) -> Features | None:
        """The features with those of some modalities made anew, ready for `refuse`; the others are taken as they are.

        Args:
            features: Of an earlier pass over the same samples, in evaluation.
            inputs: The modalities that changed, (B, ...), raw.
            presence: (B, M) bool, as in that pass.

        Returns:
            None where a modality's features cannot be had without the others.
        """
        return None

    def summands(self, features: Features, presence: Tensor) -> dict[str, list[Tensor]] | None:
        """Each modality's part of each fused level, where a level is the sum of its parts; None where it is not."""
        return None

    def adaptable(self) -> list[nn.Parameter]:
        """What test-time adaptation may change: nothing as it stands; with a fusion, what the fusion says."""
        return []

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Modality -> the parameters it owns alone. The trunk knows; names of parameters do not."""
        raise TypeError(f"{type(self).__name__} must define parameter_groups()")


class LateTrunk(Trunk):
    """Separate encoders, fused behind them: any number of modalities, and of any kind in global prediction.

    In global prediction the last level of each encoder is pooled to a vector, and the vectors are fused. In dense
    prediction every level is fused, position by position, so the encoders must give maps of equal sizes.

    Args:
        modalities: In column order; their scaling is done here.
        encoders: Modality -> encoder.
        fusion: Over one level of vectors, or over all levels of maps.
        policy: What stands in for absent modalities.
        dense: Keep all levels as maps.
        skip_absent: Encode only rows whose modality is present, where the policy allows it. In evaluation the result is
            the same. In training BatchNorm statistics then come from the present rows alone, whereas the published
            codes encode every row and mask afterwards. A lone present row is encoded with the whole batch, because
            BatchNorm cannot train on one row.
    """

    def __init__(
        self,
        modalities: Sequence[Modality],
        encoders: Mapping[str, Encoder],
        fusion: Fusion,
        policy: MissingPolicy,
        *,
        dense: bool = False,
        skip_absent: bool = True,
    ) -> None:
        super().__init__()
        self.modalities = tuple(modality.name for modality in modalities)
        self.shapes = {modality.name: modality.shape for modality in modalities}
        self.scalers = nn.ModuleDict({modality.name: Scaler(modality) for modality in modalities})
        self.encoders = nn.ModuleDict({name: encoders[name] for name in self.modalities})
        self.feature_channels = {
            name: encoders[name].channels if dense else encoders[name].channels[-1:] for name in self.modalities
        }
        self.fusion = fusion
        self.policy = policy
        self.dense = dense
        self.skip_absent = skip_absent and not policy.encodes_absent
        self.fused_channels = fusion.channels
        self._run = RowRunner()

    @classmethod
    def of(cls, parts: TrunkParts) -> LateTrunk:
        """A trunk of fresh parts."""
        encoders = {modality.name: parts.make_encoder(modality.name) for modality in parts.modalities}
        widths = {name: one.channels if parts.dense else one.channels[-1:] for name, one in encoders.items()}
        return cls(
            parts.modalities,
            encoders,
            parts.make_fusion(widths),
            parts.make_policy(widths),
            dense=parts.dense,
            skip_absent=parts.skip_absent,
        )

    def forward(
        self, inputs: Mapping[str, Tensor], presence: Tensor, edit: FeatureEdit | None = None
    ) -> tuple[Features, list[Tensor]]:
        """See `Trunk.forward`; features and fused levels are one vector each, or in dense prediction maps by level."""
        features = self.encode(inputs, presence)
        on_device = presence.to(next(iter(inputs.values())).device, non_blocking=True)
        return features, self._fuse(features, on_device, edit)

    def encode(self, inputs: Mapping[str, Tensor], presence: Tensor) -> Features:
        """Features of every modality, {modality: levels}; rows that were skipped are zero."""
        features = {
            name: self._encode_one(name, inputs[name], presence[:, column])
            for column, name in enumerate(self.modalities)
        }
        for level, maps in enumerate(zip(*features.values(), strict=False)):
            refuse_other_sizes(level, dict(zip(features, maps, strict=True)))
        return features

    def reencode(self, features: Features, inputs: Mapping[str, Tensor], presence: Tensor) -> Features:
        """See `Trunk.reencode`: encoders are separate."""
        return {
            name: self._encode_one(name, inputs[name], presence[:, column]) if name in inputs else levels
            for column, (name, levels) in enumerate(features.items())
        }

    def _encode_one(self, name: str, x: Tensor, present: Tensor) -> list[Tensor]:
        x = self.policy.on_input(self.scalers[name](x), present.to(x.device, non_blocking=True), modality=name)
        rows = rows_to_run(present, training=self.training) if self.skip_absent else None
        if rows is not None and len(rows) == 0 and not self.dense:
            return [x.new_zeros(len(x), self.feature_channels[name][-1])]
        return self._levels(name, x, rows)

    def _levels(self, name: str, x: Tensor, rows: Tensor | None = None) -> list[Tensor]:
        encoder = self.encoders[name]

        def levels(part: Tensor) -> list[Tensor]:
            maps: list[Tensor] = encoder(part)
            return maps if self.dense else [pooled(maps[-1])]

        return self._run(f"the encoder of {name}", encoder, levels, x, rows)

    def _fuse(self, features: Features, presence: Tensor, edit: FeatureEdit | None) -> list[Tensor]:
        counted = self._counted(presence)
        fused = []
        for level in range(len(self.fused_channels)):
            shown: Mapping[str, Tensor] = self.shown(features, presence, level)
            if edit is not None:
                shown = edit(level, shown, presence)
            fused.append(self.fusion(level, shown, counted))
        return fused

    def _counted(self, presence: Tensor) -> Tensor:
        """The modalities that a fusion counts as present."""
        return torch.ones_like(presence) if self.policy.stands_in else presence

    def shown(self, features: Features, presence: Tensor, level: int = 0) -> dict[str, Tensor]:
        """What enters the fusion of a level: features after the missing policy, {modality: (B, D, ...)}."""
        return {
            name: self.policy.on_feature(levels[level], presence[:, column], modality=name, level=level)
            for column, (name, levels) in enumerate(features.items())
        }

    def refuse(self, features: Features, presence: Tensor) -> list[Tensor] | None:
        """See `Trunk.refuse`.

        A policy that feeds stand-in inputs couples all rows through BatchNorm in training: None there. In evaluation
        the stand-in's feature is one row per modality, encoded here.
        """
        if not self.policy.encodes_absent:
            return self._fuse(features, presence, None)
        if self.training:
            return None
        swapped = {
            name: [
                where_present(level, presence[:, column], stand_in)
                for level, stand_in in zip(levels, self._stand_in(name, levels[0]), strict=True)
            ]
            for column, (name, levels) in enumerate(features.items())
        }
        return self._fuse(swapped, presence, None)

    def _stand_in(self, name: str, like: Tensor) -> list[Tensor]:
        x = self.scalers[name](like.new_zeros(1, *self.shapes[name]))
        absent = like.new_zeros(1).bool()
        return [level.to(like.dtype) for level in self._levels(name, self.policy.on_input(x, absent, modality=name))]

    def adaptable(self) -> list[nn.Parameter]:
        """See `Fusion.adaptable`."""
        return self.fusion.adaptable()

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Each modality owns its encoder."""
        return {name: list(encoder.parameters()) for name, encoder in self.encoders.items()}

    def summands(self, features: Features, presence: Tensor) -> dict[str, list[Tensor]] | None:
        """See `Trunk.summands`."""
        summands: dict[str, list[Tensor]] = {name: [] for name in features}
        for level in range(len(self.fused_channels)):
            parts = self.fusion.summands(level, self.shown(features, presence, level), self._counted(presence))
            if parts is None:
                return None
            for name, part in parts.items():
                summands[name].append(part)
        return summands
