"""Each check of the model's parts, of samplers and of options fails on a component that breaks its promise."""

import broken
import torch
from broken import GENERAL, Broken, component
from pydantic import ConfigDict, Field
from torch import nn

from robustmm import CombinationSampler, Encoder, Fusion, Head, LateTrunk, MissingPolicy, Options


class Silent(Options):
    rate: float = 0.5


class Tolerant(Options):
    model_config = ConfigDict(extra="ignore")


class LosesType(Options):
    pair: object = Field((1, 2), description="comes back from JSON as a list")


class KeepsOldFeatures(LateTrunk):
    def reencode(self, features, inputs, presence):
        return features


def encoder(stage=None, channels=3, extra=None):
    def build(modality):
        linear = nn.Linear(modality.shape[0], 3)
        made = Encoder(nn.ModuleList([nn.Sequential(linear, *([stage] if stage else []))]), (channels,), (0,))
        if extra:
            made.extra = nn.Parameter(torch.ones(1))
        return made

    return component(build, suits=frozenset({"vector"}))


class MinusBatchMean(nn.Module):
    def forward(self, x):
        return x - x.mean(dim=0)


class SumFusion(Fusion):
    """Projections, added; sound as it stands."""

    def __init__(self, channels):
        super().__init__((2,) * len(next(iter(channels.values()))))
        self.layers = nn.ModuleDict({f"{m}_{i}": nn.Linear(d, 2) for m, w in channels.items() for i, d in enumerate(w)})

    def forward(self, level, features, presence):
        return sum(self.terms(level, features, presence).values())

    def terms(self, level, features, presence):
        projected = {m: self.layers[f"{m}_{level}"](f.movedim(1, -1)).movedim(-1, 1) for m, f in features.items()}
        shown = [presence[:, c].view(-1, *[1] * (f.dim() - 1)) for c, f in enumerate(features.values())]
        return {m: f * there for (m, f), there in zip(projected.items(), shown, strict=True)}


class WiderThanDeclared(SumFusion):
    def forward(self, level, features, presence):
        return torch.cat([super().forward(level, features, presence)] * 2, dim=1)


class NaNWithoutModalities(SumFusion):
    def forward(self, level, features, presence):
        fused = super().forward(level, features, presence)
        return fused / presence.sum(dim=1).view(-1, *[1] * (fused.dim() - 1))


class MixesSamples(SumFusion):
    def forward(self, level, features, presence):
        return super().forward(level, features, presence).softmax(dim=0)


class WithIdleParameter(SumFusion):
    def __init__(self, channels):
        super().__init__(channels)
        self.idle = nn.Parameter(torch.ones(1))


class SummandsWithoutBias(SumFusion):
    def summands(self, level, features, presence):
        return {name: 0.9 * term for name, term in self.terms(level, features, presence).items()}


class LinearHead(Head):
    """Sound for global prediction."""

    def __init__(self, channels, num_outputs):
        super().__init__()
        self.linear = nn.Linear(channels[-1], num_outputs)

    def forward(self, fused, size):
        return self.linear(fused[-1])


class HeadOfOneClass(LinearHead):
    def forward(self, fused, size):
        return super().forward(fused, size)[:, :1]


class HeadThatMixes(LinearHead):
    def forward(self, fused, size):
        return super().forward([fused[-1] - fused[-1].mean(dim=0)], size)


class HeadWithIdleParameter(LinearHead):
    def __init__(self, channels, num_outputs):
        super().__init__(channels, num_outputs)
        self.idle = nn.Parameter(torch.ones(1))


class HeadWithBiasTwice(LinearHead):
    def linear_part(self, fused, bias_share):
        return self.linear(fused[-1])


class HeadOfCoarseFirst(LinearHead):
    def scales(self, fused, size):
        return [self(fused, size) / 2, self(fused, size)]


def head(cls):
    return component(cls, suits=frozenset({"global"}))


class ChangesPresent(MissingPolicy):
    def on_feature(self, feature, present, *, modality, level):
        return 2 * super().on_feature(feature, present, modality=modality, level=level)


class Leaks(MissingPolicy):
    def on_feature(self, feature, present, *, modality, level):
        return feature


class LeaksGradient(MissingPolicy):
    def on_feature(self, feature, present, *, modality, level):
        return super().on_feature(feature, present, modality=modality, level=level) + feature - feature.detach()


class InputsOfTheirOwn(MissingPolicy):
    encodes_absent = True

    def on_input(self, x, present, *, modality):
        there = present.view(-1, *[1] * (x.dim() - 1))
        return x.where(there, torch.randn_like(x))


class PolicyWithIdleParameter(MissingPolicy):
    def __init__(self):
        super().__init__()
        self.idle = nn.Parameter(torch.ones(1))


def policy(cls):
    return component(lambda channels: cls())


class ShowsEverything(CombinationSampler):
    def __call__(self, observed, generator):
        return torch.ones_like(observed)


class ShowsNothing(CombinationSampler):
    def __call__(self, observed, generator):
        return torch.zeros_like(observed)


class DrawsGlobally(CombinationSampler):
    def __call__(self, observed, generator):
        return observed & ((torch.rand(observed.shape) < 0.5) | (observed.sum(dim=1, keepdim=True) == 1))


class CountsCalls(CombinationSampler):
    calls = 0

    def __call__(self, observed, generator):
        self.calls += 1
        return observed if self.calls == 1 else observed & (observed.long().cumsum(dim=1) == 1)


def sampler(cls):
    return component(lambda modalities: cls())


SOUND = CombinationSampler
CASES = [
    Broken("sampler", "describes_itself", component(SOUND, name="Bad-Name"), "Bad-Name.*must begin with a lower case"),
    Broken("sampler", "describes_itself", component(SOUND, summary="two\nlines"), "one line of text"),
    Broken("sampler", "describes_itself", component(SOUND, source=" "), "source is empty"),
    Broken("sampler", "options_have_descriptions", component(SOUND, Silent), "Silent: give rate a Field"),
    Broken("sampler", "options_refuse_unknown_keys", component(SOUND, Tolerant), "Tolerant takes unknown keys"),
    Broken("sampler", "options_survive_json", component(SOUND, LosesType), r"come back from JSON as .*\[1, 2\]"),
    Broken("trunk", "encoding_again_equals_encoding", component(KeepsOldFeatures.of), "level 0 from m0 encoded again"),
    Broken("encoder", "levels_are_as_declared", encoder(channels=4), r"is \(2, 3\), declared are 4 channels"),
    Broken("encoder", "rows_do_not_mix_in_evaluation", encoder(MinusBatchMean()), "level 0 of a sample in a batch and"),
    Broken("encoder", "every_parameter_trains", encoder(extra=True), "no gradient reaches extra"),
    Broken("fusion", "fuses_every_combination", component(WiderThanDeclared), "level 0 is .*declared is"),
    Broken("fusion", "fuses_every_combination", component(NaNWithoutModalities), "level 0 is not finite"),
    Broken("fusion", "samples_do_not_mix", component(MixesSamples), "some samples and of all: they differ"),
    Broken("fusion", "every_parameter_trains", component(WithIdleParameter), "no gradient reaches idle"),
    Broken("fusion", "summands_add_up", component(SummandsWithoutBias), "sum of the summands and fused feature"),
    Broken("head", "logits_have_the_targets_size", head(HeadOfOneClass), r"\(4, 1\), target size is \(\)"),
    Broken("head", "samples_do_not_mix", head(HeadThatMixes), "a sample in a batch and alone"),
    Broken("head", "every_parameter_trains", head(HeadWithIdleParameter), "no gradient reaches idle"),
    Broken("head", "side_outputs_follow_the_logits", head(HeadOfCoarseFirst), "the first scale and the logits"),
    Broken("head", "linear_parts_add_up", head(HeadWithBiasTwice), "sum of the linear parts and logits"),
    Broken("missing_policy", "present_rows_stay", policy(ChangesPresent), "present rows of the feature of m0"),
    Broken("missing_policy", "absent_rows_leave_no_trace", policy(Leaks), "absent rows of m0"),
    Broken("missing_policy", "absent_rows_get_no_gradient", policy(LeaksGradient), "absent rows of m0 get a gradient"),
    Broken("missing_policy", "stand_in_inputs_are_one_and_the_same", policy(InputsOfTheirOwn), "in a batch and alone"),
    Broken("missing_policy", "every_parameter_trains", policy(PolicyWithIdleParameter), "no gradient reaches idle"),
    Broken("sampler", "shows_only_what_is_there", sampler(ShowsEverything), "shown that is not observed"),
    Broken("sampler", "leaves_something_to_every_sample", sampler(ShowsNothing), "is shown with none"),
    Broken("sampler", "depends_on_the_generator_alone", sampler(DrawsGlobally), "draws from torch's global|two masks"),
    Broken("sampler", "depends_on_the_generator_alone", sampler(CountsCalls), "keep no state between calls"),
]


@broken.parametrised(CASES)
def test_check__finds_broken_promise(case):
    broken.assert_caught(case)


def test_checks__are_all_proven():
    broken.assert_complete(CASES, ["encoder", "fusion", "head", "missing_policy"], general=GENERAL)
    broken.assert_complete(CASES, ["sampler"])
