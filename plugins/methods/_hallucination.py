"""A trunk that reads one modality alone and restores the features of others from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from robustmm import FeatureEdit, Features, Trunk, where_present


class Translator(nn.Sequential):
    """A linear map of every position, BatchNorm, ReLU.

    Args:
        width_in: Channels of what it reads.
        width_out: Channels of what it gives.
        dense: Maps instead of vectors.
    """

    def __init__(self, width_in: int, width_out: int, *, dense: bool) -> None:
        if dense:
            super().__init__(nn.Conv2d(width_in, width_out, 1, bias=False), nn.BatchNorm2d(width_out), nn.ReLU())
        else:
            super().__init__(nn.Linear(width_in, width_out, bias=False), nn.BatchNorm1d(width_out), nn.ReLU())
        self.width_out = width_out


class HallucinationTrunk(Trunk):
    """Stems that all read the available modality, and translators that each of them goes through.

    The stem of a privileged modality hallucinates: its last level, through that modality's translator, is to be the
    feature that the modality itself would have. With ``cross`` every translator is applied to every stem, with shared
    weights; otherwise a stem meets its own translator alone.

    Fused levels are the finer levels of the available modality's stem, then all translations side by side, which
    `joined`, `of_stem` and `restored` take apart. Features are each stem's levels, under the name of the modality that
    it stands for; privileged inputs are never read. Without the available modality there is nothing to fuse, and what
    comes out means nothing.

    Stems scale their own inputs. The available modality owns every parameter here, the others own none.

    Args:
        available: The modality that is read.
        stems: Modality -> a trunk of the available modality alone, without fusion; in column order.
        widths: Modality -> channels of the feature that its translator gives.
        dense: Maps instead of vectors.
        cross: See above.
    """

    def __init__(
        self, available: str, stems: Mapping[str, Trunk], widths: Mapping[str, int], *, dense: bool, cross: bool
    ) -> None:
        super().__init__()
        self.modalities = tuple(stems)
        self.available = available
        self.column = self.modalities.index(available)
        self.cross = cross
        self.stems = nn.ModuleDict(stems)
        self.widths = dict(widths)
        self.feature_channels = {name: tuple(stem.feature_channels[available]) for name, stem in stems.items()}
        last = self.feature_channels[available][-1]
        self.translators = nn.ModuleDict({name: Translator(last, widths[name], dense=dense) for name in stems})
        self.joint_width = sum(widths.values())
        self.finer_channels = self.feature_channels[available][:-1]
        self.fused_channels = (*self.finer_channels, self.joint_width * (len(stems) if cross else 1))

    def forward(
        self, inputs: Mapping[str, Tensor], presence: Tensor, edit: FeatureEdit | None = None
    ) -> tuple[Features, list[Tensor]]:
        """See `Trunk.forward`; what one modality gives is no fusion that a balancer could edit."""
        own, shown = {self.available: inputs[self.available]}, presence[:, self.column]
        features = {name: stem(own, shown[:, None])[0][self.available] for name, stem in self.stems.items()}
        return features, self._translate(features, self._rows(shown) if self.training else None)

    def _rows(self, shown: Tensor) -> Tensor | None:
        """Rows to train translators on: those that are there, so that no other enters BatchNorm; None is all of them.

        A lone row goes with the whole batch, because BatchNorm cannot train on one row.
        """
        rows = shown.nonzero().squeeze(1)
        return None if len(rows) in (1, len(shown)) else rows

    def refuse(self, features: Features, presence: Tensor) -> list[Tensor]:
        """See `Trunk.refuse`; presence decides nothing here, for nothing replaces the available modality."""
        return self._translate(features, None)

    def _translate(self, features: Features, rows: Tensor | None) -> list[Tensor]:
        stems = {name: levels[-1] for name, levels in features.items()}
        if self.cross:
            made = [self._run(name, stem, rows) for stem in stems.values() for name in self.modalities]
        else:
            made = [self._run(name, stem, rows) for name, stem in stems.items()]
        return [*features[self.available][:-1], torch.cat(made, dim=1)]

    def _run(self, name: str, stem: Tensor, rows: Tensor | None) -> Tensor:
        translator = self.translators[name]
        if rows is None:
            made: Tensor = translator(stem)
            return made
        if len(rows) == 0:
            return stem.new_zeros(len(stem), self.widths[name], *stem.shape[2:])
        rows = rows.to(stem.device, non_blocking=True)
        some: Tensor = translator(stem.index_select(0, rows))
        return some.new_zeros(len(stem), *some.shape[1:]).index_copy(0, rows, some)

    def joined(self, fused: Sequence[Tensor]) -> Tensor:
        """What predictions are made of: for each modality the mean of what its translator gave, (B, D, ...)."""
        return self._by_stem(fused).mean(dim=1) if self.cross else fused[-1]

    def of_stem(self, fused: Sequence[Tensor], name: str) -> Tensor:
        """Everything that comes from one stem, through each translator, (B, D, ...); with ``cross`` alone."""
        return self._by_stem(fused)[:, self.modalities.index(name)]

    def _by_stem(self, fused: Sequence[Tensor]) -> Tensor:
        made = fused[-1]
        return made.view(made.shape[0], -1, self.joint_width, *made.shape[2:])  # (B, stems, D, ...)

    def restored(self, fused: Sequence[Tensor], name: str) -> Tensor:
        """A modality's feature as its own stem and translator restore it, (B, width, ...)."""
        joint = self.of_stem(fused, name) if self.cross else fused[-1]
        start = sum(self.widths[other] for other in self.modalities[: self.modalities.index(name)])
        return joint[:, start : start + self.widths[name]]

    def zero_without(self, logits: Tensor, presence: Tensor) -> Tensor:
        """Logits with 0 for samples without the available modality."""
        return where_present(logits, presence[:, self.column], logits.new_zeros(()))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The available modality owns everything."""
        return {name: list(self.parameters()) if name == self.available else [] for name in self.modalities}
