"""What corruptions promise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, product

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from robustmm.corruption import SEVERITIES, Corruption, Spread, misfit
from robustmm.errors import ConfigError, DataError, RobustmmError
from robustmm.registry import Component
from robustmm.testing.contract import NotApplicable, build, check, during, require, require_finite
from robustmm.types import Modality, Scaling

#: Samples of every kind, odd sizes among them.
SHAPES = {
    "vector": ((1,), (7,)),
    "sequence": ((1, 33), (3, 50)),
    "image": ((1, 33, 47), (3, 40, 64), (4, 9, 8)),
    "spectrogram": ((1, 37, 51),),
}
#: Raw value that says "not measured" in half of the settings; all others lie above it.
INVALID = 0.0
#: Samples from which a spread is measured.
SAMPLES = 24
#: Draws over which the change of the values is averaged, and by how much a stronger severity may fall short of a weaker
#: one: what is random differs little between severities, but a few draws are no expectation.
DRAWS, SLACK = 48, 0.05


def every_modality() -> list[Modality]:
    """A modality of each shape of each kind, with and without a value that says "not measured"."""
    plain = [Modality("m0", kind, shape, Scaling("none")) for kind in SHAPES for shape in SHAPES[kind]]  # type: ignore[arg-type]  # keys of SHAPES are kinds
    return [*plain, *(replace(one, scaling=Scaling("none", invalid=INVALID)) for one in plain)]


def modalities_for(component: Component) -> list[Modality]:
    """Those that the corruption fits.

    Raises:
        NotApplicable: there is none.
    """
    fitting = [one for one in every_modality() if misfit(component, one) is None]
    if not fitting:
        raise NotApplicable("it fits none of the modalities that are tried")
    return fitting


def samples(modality: Modality) -> Tensor:
    """Whole numbers from 1 to 255 that vary smoothly in time or space, a tenth of them not measured, (B, D, ...)."""
    grid = modality.shape[1:]
    rough = torch.randn(SAMPLES, modality.shape[0], *[-(-size // 4) for size in grid])
    smooth = interpolate(rough, grid, mode="bilinear" if len(grid) == 2 else "linear") if grid else rough
    values = (128 + 50 * smooth).round().clamp(1, 255)
    if modality.scaling.invalid is not None:
        values[torch.rand_like(values) < 0.1] = modality.scaling.invalid
    return values


@dataclass(frozen=True)
class Setting:
    """The corruption made for one modality, with samples (B, D, ...)."""

    corruption: Corruption
    values: Tensor

    def __str__(self) -> str:
        return _words(self.corruption.modality)

    def broken(self, severity: int, *, row: int = 0, seed: int = 0) -> Tensor:
        """One sample broken; the next one is the other, given where one is needed."""
        generator = torch.Generator().manual_seed(seed)
        other = self.values[(row + 1) % len(self.values)] if self.corruption.needs_other else None
        return self.corruption(self.values[row].clone(), severity, generator, other)

    def change(self, severity: int) -> float:
        """By how much values are changed, on average over samples and draws; each severity sees the same ones."""
        pairs = [(draw % SAMPLES, draw) for draw in range(DRAWS)]
        changed = [self.broken(severity, row=row, seed=seed) - self.values[row] for row, seed in pairs]
        return float(torch.stack(changed).abs().mean())


def settings(component: Component) -> Iterator[Setting]:
    """The corruption for each modality that it fits."""
    for modality in modalities_for(component):
        values = samples(modality)
        with during(_words(modality)):
            corruption = build(component, modality=modality, spread=Spread.of(values, modality.scaling.invalid))
        yield Setting(corruption, values)


def _words(modality: Modality) -> str:
    return f"{modality.kind} {modality.shape}, invalid {modality.scaling.invalid}"


@check("corruption")
def fits_or_says_why(component: Component) -> None:
    """For a modality of a kind that it suits and does not fit, it says why not, and is not built."""
    for modality in every_modality():
        reason = misfit(component, modality)
        if reason is None or (component.suits and modality.kind not in component.suits):
            continue
        with during(_words(modality)):
            require(bool(reason.strip()), "reason_against gives an empty text; give None where it fits")
            try:
                build(component, modality=modality, spread=Spread.of(samples(modality), INVALID))
            except RobustmmError as error:
                require(reason in str(error), f"it refuses with '{error}', and reason_against says '{reason}'")
            else:
                require(False, f"it is built although reason_against says '{reason}'")


@check("corruption")
def keeps_shape_and_type(component: Component) -> None:
    """Finite values of the sample's shape and type in every severity, also of a constant sample and one all invalid."""
    for setting in settings(component):
        value = setting.values[0]
        odd = replace(
            setting, values=torch.stack([value, torch.full_like(value, 255), torch.full_like(value, INVALID)])
        )
        for severity, row in product(SEVERITIES, range(len(odd.values))):
            with during(f"{setting}, severity {severity}"):
                result = odd.broken(severity, row=row)
                require(result.shape == value.shape, f"shape {tuple(result.shape)}, not {tuple(value.shape)}")
                require(result.dtype == torch.float32, f"type {result.dtype}, not torch.float32")
                require_finite(result, "the result")


@check("corruption")
def leaves_its_input_alone(component: Component) -> None:
    """Neither the sample nor the other one is changed."""
    for setting, severity in product(settings(component), SEVERITIES):
        with during(f"{setting}, severity {severity}"):
            value, other = setting.values[0].clone(), setting.values[1].clone()
            result = setting.corruption(value, severity, torch.Generator().manual_seed(0), other)
            result += 1  # one that shares memory with the input would change it here
            require(torch.equal(value, setting.values[0]), "the sample is changed, or the result shares its memory")
            require(torch.equal(other, setting.values[1]), "the other is changed, or the result shares its memory")


@check("corruption")
def draws_from_its_generator_alone(component: Component) -> None:
    """Equal generators give equal results, bit for bit, and torch's global generator is not used."""
    for setting, severity in product(settings(component), SEVERITIES):
        with during(f"{setting}, severity {severity}"):
            before = torch.get_rng_state()
            first = setting.broken(severity)
            require(torch.equal(before, torch.get_rng_state()), "it draws from torch's global generator")
            require(torch.equal(first, setting.broken(severity)), "results of equal generators differ")


@check("corruption")
def depends_on_no_other_call(component: Component) -> None:
    """A sample's result is the same whichever were broken before it, so that neither batches nor order play a part."""
    for setting, severity in product(settings(component), SEVERITIES):
        with during(f"{setting}, severity {severity}"):
            alone = setting.broken(severity, row=2)
            for row in (1, 0):
                setting.broken(SEVERITIES[-1], row=row, seed=row)
            require(torch.equal(alone, setting.broken(severity, row=2)), "results differ after other calls")


@check("corruption")
def refuses_other_severities(component: Component) -> None:
    """A severity that is not 1 to 5 is an error that names it."""
    for setting, severity in product(settings(component), (0, len(SEVERITIES) + 1)):
        with during(setting):
            try:
                setting.broken(severity)
            except ConfigError as error:
                require(str(severity) in str(error), f"the error does not name severity {severity}: {error}")
            else:
                require(False, f"severity {severity} is taken")


@check("corruption")
def changes_more_where_severer(component: Component) -> None:
    """On average values are changed at all, and by a stronger severity at least as much as by a weaker one."""
    for setting in settings(component):
        with during(setting):
            changes = [setting.change(severity) for severity in SEVERITIES]
            require(changes[-1] > 0, "it changes nothing")
            for severity, (weaker, stronger) in enumerate(pairwise(changes), start=1):
                text = f"by {stronger:.4g} on average in severity {severity + 1}, and by {weaker:.4g} in {severity}"
                require(stronger >= (1 - SLACK) * weaker, f"it changes values {text}")


@check("corruption")
def asks_for_the_other_it_reads(component: Component) -> None:
    """With ``needs_other`` a call without the other sample is an error; without it the other sample is not read."""
    for setting, severity in product(settings(component), SEVERITIES):
        with during(f"{setting}, severity {severity}"):
            corruption, values, generator = setting.corruption, setting.values, torch.Generator().manual_seed(0)
            if not corruption.needs_other:
                given = corruption(values[0], severity, generator, values[1])
                require(torch.equal(given, setting.broken(severity)), "it reads a sample that it does not ask for")
                continue
            try:
                corruption(values[0], severity, generator)
            except DataError:
                continue
            require(False, "it needs another sample and does without one")


@check("corruption")
def keeps_what_was_not_measured(component: Component) -> None:
    """Values that say "not measured" stay, unless values change their places."""
    for setting, severity in product(settings(component), SEVERITIES):
        modality = setting.corruption.modality
        if modality.scaling.invalid is None or not setting.corruption.keeps_places:
            continue
        with during(f"{setting}, severity {severity}"):
            unmeasured = setting.values[0] == INVALID
            result = setting.broken(severity)[unmeasured]
            require((result == INVALID).all(), "a value that was not measured is given one")
