"""What trunks promise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from robustmm.masks import where_present
from robustmm.models.encoder import Encoder
from robustmm.models.fusion import Fusion
from robustmm.models.missing import MissingPolicy
from robustmm.models.trunk import Channels, Features, Trunk, TrunkParts
from robustmm.registry import Component
from robustmm.testing.contract import build, check, during, require, require_close, require_finite, require_gradients
from robustmm.testing.tiny import CHANNELS, NAMES, VECTOR, WIDTH, mixed_presence, vector_encoder
from robustmm.types import Modality, Scaling

BATCH = 8
#: Of the inputs of dense prediction: not even, so that levels are rounded.
GRID = (37, 50)
LEVELS = 5


class SumFusion(Fusion):
    """The sum of the present features, all of one width."""

    def forward(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> Tensor:
        """See `Fusion.forward`."""
        parts = [
            where_present(feature, presence[:, column], feature.new_zeros(()))
            for column, feature in enumerate(features.values())
        ]
        return torch.stack(parts).sum(dim=0)


@dataclass(frozen=True)
class Case:
    """A trunk over so many modalities, and what it is given."""

    form: str
    count: int
    trunk: Trunk
    inputs: Mapping[str, Tensor]

    def __str__(self) -> str:
        return f"M = {self.count}, {self.form} prediction"

    @property
    def presence(self) -> Tensor:
        """All combinations in turn."""
        return mixed_presence(self.count, BATCH)

    def fused(self, inputs: Mapping[str, Tensor], presence: Tensor) -> list[Tensor]:
        """The fused levels."""
        levels: list[Tensor] = self.trunk(inputs, presence)[1]
        return levels


def cases(component: Component) -> Iterator[Case]:
    """One to three modalities, global and dense unless the trunk suits one of ``global`` and ``dense`` alone."""
    for form in [form for form in ("global", "dense") if form in component.suits] or ("global", "dense"):
        for count in (1, 2, 3):
            with during(f"M = {count}, {form} prediction"):
                trunk: Trunk = build(component, parts=_parts(form == "dense", count))
            generator = torch.Generator().manual_seed(count)
            shape = (CHANNELS, *GRID) if form == "dense" else (VECTOR,)
            inputs = {name: torch.randn(BATCH, *shape, generator=generator) for name in NAMES[:count]}
            yield Case(form, count, trunk, inputs)


def _parts(dense: bool, count: int) -> TrunkParts:
    shape = (CHANNELS, *GRID) if dense else (VECTOR,)
    kind = "image" if dense else "vector"
    return TrunkParts(
        tuple(Modality(name, kind, shape, Scaling("none")) for name in NAMES[:count]),  # type: ignore[arg-type]
        dense,
        make_encoder=lambda name: _pyramid() if dense else vector_encoder(),
        make_fusion=_sum,
        make_policy=lambda channels: MissingPolicy(),
    )


def _sum(channels: Channels) -> Fusion:
    return SumFusion(next(iter(channels.values())))


def _pyramid() -> Encoder:
    """Five levels of one width, each half of the one before: a stage takes a fused level as it takes its own."""
    widths = (CHANNELS, *[WIDTH] * LEVELS)
    stages = nn.ModuleList(
        nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.Tanh())
        for before, after in pairwise(widths)
    )
    return Encoder(stages, widths[1:], tuple(2**level for level in range(1, LEVELS + 1)))


@check("trunk")
def fuses_every_combination(component: Component) -> None:
    """Features of every modality and finite fused levels with the declared channels, in training and evaluation."""
    for case in cases(component):
        with during(case):
            for mode in (True, False):
                features, fused = case.trunk.train(mode)(case.inputs, case.presence)
                require(tuple(features) == NAMES[: case.count], f"features of {list(features)}")
                declared = case.trunk.fused_channels
                require(len(fused) == len(declared), f"{len(fused)} fused levels, declared are {len(declared)}")
                for level, (own, width) in enumerate(zip(fused, declared, strict=True)):
                    require(own.shape[:2] == (BATCH, width), f"level {level} is {tuple(own.shape)}, width is {width}")
                    require(own.dim() == (4 if case.form == "dense" else 2), f"level {level} has {own.dim()} axes")
                    require_finite(own, f"level {level}")
                sizes = [own.shape[2:].numel() for own in fused]
                require(sizes == sorted(sizes, reverse=True), f"levels go from fine to coarse, got sizes {sizes}")


@check("trunk")
def absent_inputs_leave_no_trace(component: Component) -> None:
    """In evaluation the fused levels do not depend on the input in the place of an absent modality."""
    for case in cases(component):
        with during(case), torch.no_grad():
            case.trunk.eval()
            other = {
                name: x.masked_fill(~case.presence[:, column].view(-1, *[1] * (x.dim() - 1)), 7.0)
                for column, (name, x) in enumerate(case.inputs.items())
            }
            for ours, theirs in zip(
                case.fused(case.inputs, case.presence), case.fused(other, case.presence), strict=True
            ):
                require_close(ours, theirs, "fused levels with other values in absent places")


@check("trunk")
def samples_do_not_mix(component: Component) -> None:
    """In evaluation a sample's fused levels are the same in any batch, also where the whole batch lacks a modality."""
    for case in cases(component):
        with during(case), torch.no_grad():
            case.trunk.eval()
            whole = case.fused(case.inputs, case.presence)
            for row in range(0, BATCH, 3):
                alone = case.fused(
                    {name: x[row : row + 1] for name, x in case.inputs.items()}, case.presence[row : row + 1]
                )
                for ours, theirs in zip(alone, whole, strict=True):
                    require_close(ours, theirs[row : row + 1], "a sample alone and in a batch")


@check("trunk")
def fusing_anew_equals_encoding_anew(component: Component) -> None:
    """In evaluation `refuse` on the features of the complete input gives what `forward` gives for another presence."""
    for case in cases(component):
        with during(case), torch.no_grad():
            case.trunk.eval()
            features: Features = case.trunk(case.inputs, torch.ones_like(case.presence))[0]
            fused = case.trunk.refuse(features, case.presence)
            if fused is None:
                continue
            for ours, theirs in zip(fused, case.fused(case.inputs, case.presence), strict=True):
                require_close(ours, theirs, "fused anew and encoded anew")


@check("trunk")
def an_edit_reaches_the_fused_levels(component: Component) -> None:
    """What a balancer's edit returns is what is fused, at every level."""
    for case in cases(component):
        with during(case), torch.no_grad():
            case.trunk.eval()
            seen: list[int] = []

            def doubled(level: int, features: Mapping[str, Tensor], presence: Tensor) -> Mapping[str, Tensor]:
                seen.append(level)  # noqa: B023  # called within this round alone
                return {name: 2 * feature for name, feature in features.items()}

            plain = case.fused(case.inputs, case.presence)
            edited = case.trunk(case.inputs, case.presence, doubled)[1]
            require(seen == sorted(set(seen)) and bool(seen), f"the edit was called for levels {seen}")
            require(not torch.allclose(plain[0], edited[0]), "the edit has no effect on the first fused level")


@check("trunk")
def groups_are_apart(component: Component) -> None:
    """`parameter_groups` names the modalities in column order; the groups are the trunk's own and share nothing."""
    for case in cases(component):
        with during(case):
            groups = case.trunk.parameter_groups()
            require(tuple(groups) == NAMES[: case.count], f"groups of {list(groups)}")
            owned = [id(parameter) for group in groups.values() for parameter in group]
            require(len(owned) == len(set(owned)), "a parameter belongs to two modalities")
            require(set(owned) <= {id(p) for p in case.trunk.parameters()}, "a parameter is not the trunk's")
            require(all(groups.values()), "a modality owns nothing")


@check("trunk")
def scalers_are_there(component: Component) -> None:
    """`scalers` holds one `Scaler` per modality, for the run to set its statistics."""
    for case in cases(component):
        require(tuple(case.trunk.scalers) == NAMES[: case.count], f"{case}: scalers of {list(case.trunk.scalers)}")


@check("trunk")
def every_parameter_trains(component: Component) -> None:
    """Each parameter gets a gradient from some combination."""
    for case in cases(component):
        with during(case):
            fused = case.trunk.train()(case.inputs, case.presence)[1]
            torch.autograd.backward(sum((level * torch.randn_like(level)).sum() for level in fused))
            require_gradients(case.trunk, "backward from the fused levels")


@check("trunk")
def encoding_again_equals_encoding(component: Component) -> None:
    """In evaluation, features of which one modality's were made anew give what the changed inputs give."""
    for case in cases(component):
        with during(case), torch.no_grad():
            trunk, whole = case.trunk.eval(), torch.ones_like(case.presence)
            features = trunk(case.inputs, whole)[0]
            for name in NAMES[: case.count]:
                changed = {name: 2 * case.inputs[name] - 1}
                again = trunk.reencode(features, changed, whole)
                fused = None if again is None else trunk.refuse(again, case.presence)
                if fused is None:
                    continue
                direct = case.fused({**case.inputs, **changed}, case.presence)
                for level, (ours, theirs) in enumerate(zip(fused, direct, strict=True)):
                    require_close(ours, theirs, f"level {level} from {name} encoded again")
