"""Encoders that are fused behind every stage, one of which goes on from the fused maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from robustmm.errors import ShapeError
from robustmm.masks import where_present
from robustmm.models.encoder import Encoder
from robustmm.models.fusion import Fusion
from robustmm.models.missing import MissingPolicy
from robustmm.models.rows import RowRunner, refuse_other_sizes, rows_to_run, whole
from robustmm.models.scaler import Scaler
from robustmm.models.trunk import Features, Trunk
from robustmm.types import FeatureEdit, Modality


class StagewiseTrunk(Trunk):
    """Maps of all modalities are fused after every stage; the carrier's next stage goes on from the fused map.

    The other modalities go on from their own features, which no mask touches. An absent modality is masked where it
    enters a fusion, at every stage. So where the carrier is absent its stages still come between the fusions but leave
    no trace, and where another modality is absent the carrier's stages get what the remaining ones give.

    Args:
        modalities: In column order; their scaling is done here.
        encoders: Modality -> encoder; all have the same number of stages and give maps of equal sizes.
        fusion: Over all levels. Behind every stage but the last it must keep the carrier's number of channels.
        policy: What stands in for absent modalities.
        neck: From the fused maps of all levels to the fused levels of the trunk.
        fused_channels: Channels of the neck's results.
        carrier: Modality whose stages take the fused maps.
        skip_absent: Encode only rows whose modality is present, where the policy allows it; of the carrier likewise, as
            its own maps are masked in the other rows. In evaluation the result is the same. In training BatchNorm
            statistics then come from the present rows alone, whereas the published codes encode every row and mask
            afterwards.

    Raises:
        ShapeError: stages that cannot be fused one by one, or a fusion whose maps the carrier cannot take.
    """

    def __init__(
        self,
        modalities: Sequence[Modality],
        encoders: Mapping[str, Encoder],
        fusion: Fusion,
        policy: MissingPolicy,
        neck: nn.Module,
        *,
        fused_channels: Sequence[int],
        carrier: str,
        skip_absent: bool = True,
    ) -> None:
        super().__init__()
        _check_stages(encoders, carrier)
        _check_carried(fusion.channels, encoders[carrier].channels, carrier)
        self.modalities = tuple(modality.name for modality in modalities)
        self.shapes = {modality.name: modality.shape for modality in modalities}
        self.scalers = nn.ModuleDict({modality.name: Scaler(modality) for modality in modalities})
        self.encoders = nn.ModuleDict({name: encoders[name] for name in self.modalities})
        self.fusion = fusion
        self.policy = policy
        self.neck = neck
        self.carrier = carrier
        self.skip_absent = skip_absent and not policy.encodes_absent
        self.fused_channels = tuple(fused_channels)
        self.feature_channels = {name: encoders[name].channels for name in self.modalities}
        self._run = RowRunner()

    def forward(
        self, inputs: Mapping[str, Tensor], presence: Tensor, edit: FeatureEdit | None = None
    ) -> tuple[Features, list[Tensor]]:
        """See `Trunk.forward`.

        The features are those of all stages, before the missing policy; the carrier's, from the second on, are made of
        fused maps. An edit is called once per stage.
        """
        shown = presence.to(next(iter(inputs.values())).device, non_blocking=True)
        rows = {name: self._rows(presence[:, column]) for column, name in enumerate(self.modalities)}
        features = {
            name: self._encode(name, self._input(name, inputs[name], shown[:, column]), rows[name])
            for column, name in enumerate(self.modalities)
        }
        return features, self._carry(features, rows[self.carrier], shown, edit)

    def _input(self, name: str, x: Tensor, present: Tensor) -> Tensor:
        return self.policy.on_input(self.scalers[name](x), present, modality=name)

    def _rows(self, present: Tensor) -> Tensor | None:
        return rows_to_run(present, training=self.training) if self.skip_absent else None

    def _encode(self, name: str, x: Tensor, rows: Tensor | None) -> list[Tensor]:
        """All levels of a modality, of the carrier the first alone; rows that are skipped are zero."""
        if name == self.carrier:
            return [self._stage(0, x, rows)]
        encoder = self.encoders[name]
        return self._run(f"the encoder of {name}", encoder, encoder, x, rows)

    def _stage(self, level: int, x: Tensor, rows: Tensor | None) -> Tensor:
        """One stage of the carrier."""
        stage = self.encoders.get_submodule(f"{self.carrier}.stages.{level}")
        return self._run(f"stage {level} of {self.carrier}", stage, lambda part: [stage(part)], x, rows)[0]

    def _carry(
        self, features: Features, rows: Tensor | None, presence: Tensor, edit: FeatureEdit | None
    ) -> list[Tensor]:
        """Fuse level by level, on the way adding to ``features`` what the carrier's stages make of the fused maps.

        Args:
            features: Of the carrier the first level alone.
            rows: Of the carrier, see `rows_to_run`.
            presence: (B, M) bool.
            edit: See `Trunk.forward`.
        """
        counted = torch.ones_like(presence) if self.policy.stands_in else presence
        maps: list[Tensor] = []
        for level in range(len(self.fusion.channels)):
            if level > 0:
                features[self.carrier].append(self._stage(level, maps[-1], rows))
            shown: Mapping[str, Tensor] = self._shown(features, presence, level)
            refuse_other_sizes(level, shown)
            if edit is not None:
                shown = edit(level, shown, presence)
            maps.append(self.fusion(level, shown, counted))
        return whole("the trunk", lambda _: self.neck(maps), presence)

    def _shown(self, features: Features, presence: Tensor, level: int) -> dict[str, Tensor]:
        """What enters the fusion of a level: features after the missing policy."""
        return {
            name: self.policy.on_feature(levels[level], presence[:, column], modality=name, level=level)
            for column, (name, levels) in enumerate(features.items())
        }

    def refuse(self, features: Features, presence: Tensor) -> list[Tensor] | None:
        """See `Trunk.refuse`: in evaluation alone, where rows do not mix.

        The carrier's first level and all levels of the others do not depend on presence and are taken as they are; the
        carrier's later stages are run again, from the maps that are fused anew. In training they would count in
        BatchNorm's statistics: None there. Where the policy feeds stand-in inputs, their features are encoded here, one
        row per modality; None where the inputs had another size than the modalities declare, which features do not
        tell.
        """
        if self.training:
            return None
        # Copies: the carrier's levels are added on the way, and the features that are given stay as they are.
        known = {name: list(levels[:1] if name == self.carrier else levels) for name, levels in features.items()}
        if self.policy.encodes_absent:
            for column, (name, levels) in enumerate(known.items()):
                stand_ins = self._stand_in(name, levels[0])
                if stand_ins[0].shape[1:] != levels[0].shape[1:]:
                    return None
                known[name] = [where_present(a, presence[:, column], b) for a, b in zip(levels, stand_ins, strict=True)]
        return self._carry(known, self._rows(presence[:, self.modalities.index(self.carrier)]), presence, None)

    def reencode(self, features: Features, inputs: Mapping[str, Tensor], presence: Tensor) -> Features:
        """See `Trunk.reencode`; of the carrier the first level alone, since `refuse` makes the others anew."""
        shown = presence.to(next(iter(inputs.values())).device)
        return {
            name: self._encode(name, self._input(name, inputs[name], shown[:, column]), self._rows(presence[:, column]))
            if name in inputs
            else levels
            for column, (name, levels) in enumerate(features.items())
        }

    def _stand_in(self, name: str, like: Tensor) -> list[Tensor]:
        """What the policy's input for an absent row gives, (1, D, ...) per level."""
        absent = like.new_zeros(1).bool()
        x = self._input(name, like.new_zeros(1, *self.shapes[name]), absent)
        return [level.to(like.dtype) for level in self._encode(name, x, None)]

    def adaptable(self) -> list[nn.Parameter]:
        """See `Fusion.adaptable`; the carrier's stages between the fusions are not among them."""
        return self.fusion.adaptable()

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Each modality owns its encoder, the carrier its stages; fusion and neck are shared."""
        return {name: list(encoder.parameters()) for name, encoder in self.encoders.items()}


def _check_stages(encoders: Mapping[str, Encoder], carrier: str) -> None:
    counts = {name: len(encoder.channels) for name, encoder in encoders.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ShapeError(f"stage-wise fusion needs encoders with equally many levels, got {listed}")
    vectors = [name for name, encoder in encoders.items() if 0 in encoder.reductions]
    if vectors:
        raise ShapeError(f"stage-wise fusion needs encoders that give maps; those of {', '.join(vectors)} give vectors")
    if len(encoders[carrier].stages) != counts[carrier]:
        raise ShapeError(
            f"the encoder of the carrier {carrier} cannot be entered behind each stage: it has "
            f"{len(encoders[carrier].stages)} stages for {counts[carrier]} levels; use another encoder or carrier"
        )


def _check_carried(fused: Sequence[int], own: Sequence[int], carrier: str) -> None:
    """Behind the last stage any number of channels will do: no stage follows."""
    for level, (given, taken) in enumerate(zip(fused[:-1], own[:-1], strict=True)):
        if given != taken:
            raise ShapeError(
                f"level {level}: the fusion gives {given} channels, and the next stage of the carrier {carrier} takes "
                f"{taken}; use a fusion that keeps the channels, such as se_add"
            )
