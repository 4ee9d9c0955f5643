"""What a configuration may say of the measurements on a trained model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, field_validator

from robustmm.config.component import ComponentSection, Kind, complain
from robustmm.config.messages import Complaint
from robustmm.config.section import Count, CountOrZero, NotNegative, Section, ShareOrZero, Word

Adapter = Annotated[ComponentSection, Kind("adapter")]
Corruption = Annotated[ComponentSection, Kind("corruption")]
Metric = Annotated[ComponentSection, Kind("metric")]

#: Every protocol, in the order in which they are measured and shown.
ProtocolName = Literal["combinations", "expected", "missing-rate", "corruption", "noise", "calibration", "latency"]
PatternName = Literal["bernoulli", "shared", "per_modality", "label", "block"]
NoiseName = Literal["gaussian", "salt_pepper_qmf", "salt_pepper_pdf"]
Severity = Annotated[int, Field(strict=True, ge=1, le=5)]


class MissingRateSection(Section):
    """Scores while modalities of each test sample go missing at a rate, under stored masks."""

    rates: Annotated[tuple[ShareOrZero, ...], Field(min_length=1)] = Field(
        (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), description="Missing rates, each in [0, 1)."
    )
    seeds: Count = Field(5, description="Masks drawn for each rate.")
    patterns: Annotated[tuple[PatternName, ...], Field(min_length=1)] = Field(
        ("bernoulli",),
        description="Which modalities go missing together: bernoulli (none), shared (all but one), per_modality (one "
        "alone), label (by label), block (in runs of samples).",
    )
    block_length: Count = Field(16, description="Samples in a run of pattern block.")
    masks: Word | None = Field(
        None, description="Mask file of another run, masks.npz, to be used instead of drawing; null: draw."
    )


class CorruptionSection(Section):
    """Scores while one modality of every test sample is corrupted."""

    corruptions: Literal["all"] | Annotated[tuple[Corruption, ...], Field(min_length=1)] = Field(
        "all", description="Corruptions: all that fit a modality, or a list."
    )
    modalities: Literal["all"] | Annotated[tuple[Word, ...], Field(min_length=1)] = Field(
        "all", description="Modalities that are corrupted in turn."
    )
    severities: Annotated[tuple[Severity, ...], Field(min_length=1)] = Field(
        (1, 2, 3, 4, 5), description="Severities, 1 to 5."
    )
    seed: CountOrZero = Field(0, description="Seed of the draws.")


class NoiseSection(Section):
    """Scores while each modality of each test sample is noisy with probability one half, as QMF and PDF measure."""

    kinds: Annotated[tuple[NoiseName, ...], Field(min_length=1)] = Field(
        ("gaussian",), description="gaussian, salt_pepper_qmf, salt_pepper_pdf."
    )
    strengths: Annotated[tuple[NotNegative, ...], Field(min_length=1)] = Field(
        (0.0, 1.0, 5.0, 10.0), description="Epsilon: deviation in grey levels of gaussian noise."
    )
    seeds: Count = Field(3, description="Draws for each strength.")


class ExpectedSection(Section):
    """Expected scores where each modality fails with a probability of its own, from the table of combinations."""

    probabilities: tuple[ShareOrZero, ...] = Field(
        (0.05, 0.1, 0.2), description="Failure probabilities that all modalities share, one row each."
    )
    drop: dict[Word, Annotated[float, Field(strict=True, ge=0, le=1)]] = Field(
        {}, description="Failure probability by modality for a row of its own; who is not named never fails."
    )


class LatencySection(Section):
    """Time and memory of a prediction from each combination."""

    batch_sizes: Annotated[tuple[Count, ...], Field(min_length=1)] = Field((1,), description="Samples at once.")
    repeats: Count = Field(50, description="Timed predictions.")
    warmup: CountOrZero = Field(10, description="Predictions before them that are not timed.")


class EvaluationSection(Section):
    """What is measured after training."""

    batch_size: Count | None = Field(None, description="Samples in a batch; null: as in training.")
    protocols: Annotated[tuple[ProtocolName, ...], Field(min_length=1)] = Field(
        ("combinations",), description="What is measured after training, and by evaluate as it stands."
    )
    combinations: Literal["all"] | Annotated[tuple[Word, ...], Field(min_length=1)] = Field(
        "all", description="Combinations of modalities to measure: all, or a list such as [rgb, rgb+depth]."
    )
    metrics: tuple[Metric, ...] = Field((), description="Scores beside the task's own.")
    adapter: Adapter | None = Field(
        None,
        description="Also score the model while it adapts to the test part at test time, without labels; null: not.",
    )
    unimodal: StrictBool = Field(True, description="Also score each modality's features alone.")
    pictures: Annotated[int, Field(strict=True, ge=0, le=32)] = Field(
        6, description="Test samples on the picture sheet of dense prediction, evenly spaced; 0: no sheet."
    )

    missing_rate: MissingRateSection = Field(MissingRateSection(), description="Of protocol missing-rate.")
    corruption: CorruptionSection = Field(CorruptionSection(), description="Of protocol corruption.")
    noise: NoiseSection = Field(NoiseSection(), description="Of protocol noise.")
    expected: ExpectedSection = Field(ExpectedSection(), description="Of protocol expected.")
    latency: LatencySection = Field(LatencySection(), description="Of protocol latency.")

    @field_validator("combinations")
    @classmethod
    def _written_well(cls, combinations: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(combinations, str):
            return combinations
        wrong = []
        for index, combination in enumerate(combinations):
            names = combination.split("+")
            if "" in names or len(set(names)) != len(names):
                text = f"expected modalities joined by '+', each once, such as rgb+depth, got '{combination}'"
                wrong.append(Complaint((index,), text))
        if wrong:
            raise complain(wrong)
        return combinations
