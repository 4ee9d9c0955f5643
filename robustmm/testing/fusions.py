"""What fusions promise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robustmm.errors import RobustmmError
from robustmm.models.fusion import Fusion
from robustmm.models.missing import MissingPolicy
from robustmm.registry import Component
from robustmm.testing.contract import build, check, during, require, require_close, require_finite, require_gradients
from robustmm.testing.tiny import NAMES, SIZE, mixed_presence

#: Sizes of the levels: vectors on one level, maps on two.
GRIDS: dict[str, tuple[tuple[int, ...], ...]] = {"vector": ((),), "map": ((5, 3), (2, 2))}
WIDTHS = (3, 5, 4, 6)
EQUAL_WIDTHS = (4, 4, 4, 4)


@dataclass(frozen=True)
class Case:
    """A fusion of so many modalities, and what it is given."""

    form: str
    count: int
    channels: Mapping[str, tuple[int, ...]]
    fusion: Fusion

    def __str__(self) -> str:
        return f"{self.form} features of {self.count} modalities, channels {dict(self.channels)}"

    @property
    def levels(self) -> range:
        """Levels to fuse."""
        return range(len(GRIDS[self.form]))

    @property
    def presence(self) -> Tensor:
        """All combinations, and a sample of which nothing is there: probes ask for it."""
        return torch.cat([mixed_presence(self.count), torch.zeros(1, self.count, dtype=torch.bool)])

    def features(self, level: int) -> dict[str, Tensor]:
        """What a missing policy hands over: zeros where a modality is absent."""
        generator = torch.Generator().manual_seed(level)
        shown = {}
        for column, (name, widths) in enumerate(self.channels.items()):
            feature = torch.randn(SIZE + 1, widths[level], *GRIDS[self.form][level], generator=generator)
            shown[name] = MissingPolicy().on_feature(feature, self.presence[:, column], modality=name, level=level)
        return shown


def cases(component: Component) -> Iterator[Case]:
    """One to four modalities, as vectors and as maps unless the fusion suits one of ``vector`` and ``map`` alone."""
    for form in [form for form in GRIDS if form in component.suits] or GRIDS:
        for count in range(1, 5):
            with during(f"{form} features of {count} modalities"):
                yield _case(component, form, count)


def _case(component: Component, form: str, count: int) -> Case:
    """With modalities of different widths, or of equal ones where the fusion asks for them by an error of its own."""
    levels = len(GRIDS[form])
    for widths in (WIDTHS, EQUAL_WIDTHS):
        channels = {NAMES[m]: tuple(widths[m] + level for level in range(levels)) for m in range(count)}
        try:
            return Case(form, count, channels, build(component, channels=channels))
        except RobustmmError:
            if widths is EQUAL_WIDTHS:
                raise
    raise AssertionError("one of the two returned or raised")


@check("fusion")
def fuses_every_combination(component: Component) -> None:
    """The result has the declared channels and the features' size, and is finite, also where nothing is there."""
    for case in cases(component):
        with during(case):
            declared = case.fusion.channels
            require(len(declared) == len(case.levels), f"{len(declared)} channels for {len(case.levels)} levels")
            for level in case.levels:
                fused = case.fusion(level, case.features(level), case.presence)
                expected = (SIZE + 1, declared[level], *GRIDS[case.form][level])
                require(fused.shape == expected, f"level {level} is {tuple(fused.shape)}, declared is {expected}")
                require_finite(fused, f"level {level}")


@check("fusion")
def samples_do_not_mix(component: Component) -> None:
    """In evaluation a sample's result is the same in any batch."""
    for case in cases(component):
        with during(case), torch.no_grad():
            fusion = case.fusion.eval()
            for level in case.levels:
                features, presence = case.features(level), case.presence
                order = torch.randperm(len(presence))[: len(presence) // 2]
                some = fusion(level, {name: feature[order] for name, feature in features.items()}, presence[order])
                whole = fusion(level, features, presence)
                require_close(some, whole[order], f"level {level} of some samples and of all")


@check("fusion")
def every_parameter_trains(component: Component) -> None:
    """Each parameter gets a gradient from some combination."""
    for case in cases(component):
        with during(case):
            fusion = case.fusion.train()
            for level in case.levels:
                fused = fusion(level, case.features(level), case.presence)
                if fused.requires_grad:
                    torch.autograd.backward((fused * torch.randn_like(fused)).sum())
            require_gradients(fusion, "backward from all levels")


@check("fusion")
def summands_add_up(component: Component) -> None:
    """Where there are summands, one per modality, their sum is the fused feature of every sample that shows any."""
    for case in cases(component):
        with during(case), torch.no_grad():
            fusion = case.fusion.eval()
            for level in case.levels:
                features, presence = case.features(level), case.presence
                parts = fusion.summands(level, features, presence)
                if parts is None:
                    continue
                require(list(parts) == list(features), f"summands of {list(parts)}, modalities are {list(features)}")
                there = presence.any(dim=1)
                total = torch.stack(list(parts.values())).sum(dim=0)
                whole = fusion(level, features, presence)
                require_close(total[there], whole[there], f"level {level}: sum of the summands and fused feature")
