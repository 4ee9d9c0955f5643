"""Each check of corruptions fails on one that breaks its promise."""

import broken
import torch
from broken import GENERAL, Broken, component

from robustmm import Corruption
from robustmm.testing import check_component


class Fades(Corruption):
    """Sound: draws values towards the mean of training."""

    def corrupt(self, value, severity, generator, other):
        return value + 0.2 * severity * (self.per_channel(self.spread.mean) - value)


class Silent(Fades):
    @classmethod
    def reason_against(cls, modality):
        return "" if modality.kind == "image" else None


class BuiltAnyway(Fades):
    def __init__(self, modality, spread):
        self.modality, self.spread = modality, spread

    @classmethod
    def reason_against(cls, modality):
        return "it needs no image" if modality.kind == "image" else None


class FirstChannel(Fades):
    keeps_places = False

    def corrupt(self, value, severity, generator, other):
        return value[:1].double()


class DividesByVariance(Fades):
    def corrupt(self, value, severity, generator, other):
        centred = value - value.mean()
        return value + severity * centred / centred.square().mean().sqrt()


class InPlace(Fades):
    def corrupt(self, value, severity, generator, other):
        return value.mul_(1 - 0.1 * severity)


class SharesMemory(Fades):
    keeps_places = False

    def corrupt(self, value, severity, generator, other):
        return value


class DrawsElsewhere(Fades):
    def corrupt(self, value, severity, generator, other):
        return value + severity * torch.randn_like(value)


class Remembers(Fades):
    """Goes on from the strength of the call before."""

    before = 0.0

    def corrupt(self, value, severity, generator, other):
        result = value + severity + self.before
        self.before = float(value.mean())
        return result


class TakesAnySeverity(Fades):
    def __call__(self, value, severity, generator, other=None):
        return self.corrupt(value, severity, generator, other)


class MildestLast(Fades):
    def corrupt(self, value, severity, generator, other):
        return value + 6 - severity


class DoesNothing(Fades):
    def corrupt(self, value, severity, generator, other):
        return value.clone()


class DoesWithoutOther(Fades):
    needs_other = True

    def __call__(self, value, severity, generator, other=None):
        return super().__call__(value, severity, generator, value if other is None else other)


class ReadsOther(Fades):
    def __call__(self, value, severity, generator, other=None):
        return super().__call__(value, severity, generator) + (0 if other is None else other)


class FillsHoles(Fades):
    def __call__(self, value, severity, generator, other=None):
        return super().__call__(value, severity, generator) + 1


CASES = [
    Broken("corruption", "fits_or_says_why", component(Silent), "gives an empty text; give None where it fits"),
    Broken("corruption", "fits_or_says_why", component(BuiltAnyway), "it is built although reason_against says"),
    Broken(
        "corruption", "keeps_shape_and_type", component(FirstChannel), r"shape \(1,\), not \(7,\)|not torch.float32"
    ),
    Broken("corruption", "keeps_shape_and_type", component(DividesByVariance), "the result is not finite"),
    Broken("corruption", "leaves_its_input_alone", component(InPlace), "the sample is changed"),
    Broken("corruption", "leaves_its_input_alone", component(SharesMemory), "the result shares its memory"),
    Broken("corruption", "draws_from_its_generator_alone", component(DrawsElsewhere), "torch's global generator"),
    Broken("corruption", "depends_on_no_other_call", component(Remembers), "results differ after other calls"),
    Broken("corruption", "refuses_other_severities", component(TakesAnySeverity), "severity 0 is taken"),
    Broken(
        "corruption", "changes_more_where_severer", component(MildestLast), "by 4 on average in severity 2, and by 5"
    ),
    Broken("corruption", "changes_more_where_severer", component(DoesNothing), "it changes nothing"),
    Broken("corruption", "asks_for_the_other_it_reads", component(DoesWithoutOther), "does without one"),
    Broken(
        "corruption", "asks_for_the_other_it_reads", component(ReadsOther), "it reads a sample that it does not ask"
    ),
    Broken("corruption", "keeps_what_was_not_measured", component(FillsHoles), "a value that was not measured"),
]


@broken.parametrised(CASES)
def test_check__finds_what_is_broken(case):
    broken.assert_caught(case)


def test_every_check__is_proven():
    broken.assert_complete(CASES, ["corruption"], general=GENERAL)


def test_sound_corruption__passes():
    check_component("corruption", component(Fades, name="fades"))
