"""From inputs to fused features: encoders, missing policy, fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from robustmm.errors import ShapeError
from robustmm.masks import where_present
from robustmm.models.encoder import Encoder, pooled
from robustmm.models.fusion import Fusion
from robustmm.models.missing import MissingPolicy
from robustmm.models.scaler import Scaler
from robustmm.types import FeatureEdit, Modality

Features = dict[str, list[Tensor]]


class Trunk(nn.Module):
    """From inputs and presence to features per modality and fused levels.

    Attributes:
        modalities: In column order.
        fused_channels: Channels of the fused levels.
    """

    modalities: tuple[str, ...]
    fused_channels: tuple[int, ...]

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

    def summands(self, features: Features, presence: Tensor) -> dict[str, list[Tensor]] | None:
        """Each modality's part of each fused level, where a level is the sum of its parts; None where it is not."""
        return None

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Modality -> the parameters it owns alone. The trunk knows; names of parameters do not."""
        raise TypeError(f"{type(self).__name__} must define parameter_groups()")


class LateTrunk(Trunk):
    """Separate encoders, fused once at the end as vectors: global prediction from any number and kind of modality.

    Args:
        modalities: In column order; their scaling is done here, so that a saved model takes raw values.
        encoders: Modality -> encoder; the last level is pooled to a vector.
        fusion: Over one level of vectors.
        policy: What stands in for absent modalities.
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
        skip_absent: bool = True,
    ) -> None:
        super().__init__()
        self.modalities = tuple(modality.name for modality in modalities)
        self.shapes = {modality.name: modality.shape for modality in modalities}
        self.scalers = nn.ModuleDict({modality.name: Scaler(modality) for modality in modalities})
        self.encoders = nn.ModuleDict({name: encoders[name] for name in self.modalities})
        self.fusion = fusion
        self.policy = policy
        self.skip_absent = skip_absent and not policy.encodes_absent
        self.fused_channels = fusion.channels

    def forward(
        self, inputs: Mapping[str, Tensor], presence: Tensor, edit: FeatureEdit | None = None
    ) -> tuple[Features, list[Tensor]]:
        """See `Trunk.forward`; features and fused levels are vectors, one level."""
        features = self.encode(inputs, presence)
        on_device = presence.to(next(iter(inputs.values())).device, non_blocking=True)
        return features, self._fuse(features, on_device, edit)

    def encode(self, inputs: Mapping[str, Tensor], presence: Tensor) -> Features:
        """Features of every modality, {modality: [(B, D)]}; rows that were skipped are zero."""
        return {
            name: [self._encode_one(name, inputs[name], presence[:, column])]
            for column, name in enumerate(self.modalities)
        }

    def _encode_one(self, name: str, x: Tensor, present: Tensor) -> Tensor:
        x = self.policy.on_input(self.scalers[name](x), present.to(x.device, non_blocking=True), modality=name)
        if not self.skip_absent:
            return self._vector(name, x)
        rows = present.nonzero().squeeze(1)
        if len(rows) == len(x) or (len(rows) == 1 and self.training):
            return self._vector(name, x)
        if len(rows) == 0:
            return x.new_zeros(len(x), self._width(name))
        rows = rows.to(x.device, non_blocking=True)
        vector = self._vector(name, x.index_select(0, rows))
        return vector.new_zeros(len(x), vector.shape[1]).index_copy(0, rows, vector)

    def _vector(self, name: str, x: Tensor) -> Tensor:
        try:
            return pooled(self.encoders[name](x)[-1])
        except ValueError as error:
            if len(x) > 1 or not self.training:
                raise
            raise ShapeError(
                f"the encoder of {name} cannot train on a batch of one sample ({error}); use a data.batch_size of at "
                f"least 2, or an encoder without BatchNorm"
            ) from error

    def _width(self, name: str) -> int:
        encoder = self.encoders[name]
        assert isinstance(encoder, Encoder)
        return encoder.channels[-1]

    def _fuse(self, features: Features, presence: Tensor, edit: FeatureEdit | None) -> list[Tensor]:
        shown: Mapping[str, Tensor] = self.shown(features, presence)
        if edit is not None:
            shown = edit(0, shown, presence)
        return [self.fusion(0, shown, self._counted(presence))]

    def _counted(self, presence: Tensor) -> Tensor:
        """The modalities that a fusion counts as present."""
        return torch.ones_like(presence) if self.policy.stands_in else presence

    def shown(self, features: Features, presence: Tensor) -> dict[str, Tensor]:
        """What enters the fusion: features after the missing policy, {modality: (B, D)}."""
        return {
            name: self.policy.on_feature(levels[0], presence[:, column], modality=name, level=0)
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
            name: [where_present(levels[0], presence[:, column], self._stand_in(name, levels[0]))]
            for column, (name, levels) in enumerate(features.items())
        }
        return self._fuse(swapped, presence, None)

    def _stand_in(self, name: str, like: Tensor) -> Tensor:
        x = self.scalers[name](like.new_zeros(1, *self.shapes[name]))
        absent = like.new_zeros(1).bool()
        return self._vector(name, self.policy.on_input(x, absent, modality=name)).to(like.dtype)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Each modality owns its encoder."""
        return {name: list(encoder.parameters()) for name, encoder in self.encoders.items()}

    def summands(self, features: Features, presence: Tensor) -> dict[str, list[Tensor]] | None:
        """See `Trunk.summands`."""
        parts = self.fusion.summands(0, self.shown(features, presence), self._counted(presence))
        return None if parts is None else {name: [part] for name, part in parts.items()}
