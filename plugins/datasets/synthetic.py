"""Seeded samples whose classes need several modalities, with a known best accuracy for every combination.

A class is a pattern of bits: the binary digits of its number, ``b = ceil(log2(C))`` of them. Modality m sees bit j when
``(j - m) % min(b, M) == 0``: with at least as many bits as modalities each bit lies in exactly one modality, with fewer
bits every modality sees one bit and some see the same. A modality's D values are the sum of one fixed direction per bit
that it sees, with sign + for 1 and - for 0, and Gaussian noise; the directions are orthogonal, each of root mean square
1. A vector has D = ``size``; an image or map has D = 3 channels and noise of its own in each pixel.

Without noise nothing but the seen bits can be known, so the best accuracy of a combination is the number of patterns
that its bits take over the classes, divided by C (`best_accuracy`). For C = 2^M each missing modality halves it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from robustmm import ArrayDataset, Component, DataSplits, Modality, Options, generator_for, hookimpl

from ._files import Notes

NAME = "synthetic"
CHANNELS = 3
#: Side of a label map in patches of one class.
PATCHES = 4
#: Validation and test part, as a share of the training part.
HELD_OUT_SHARE = 0.5


class SyntheticOptions(Options):
    """Options of the data set.

    Args:
        modalities: M; they are called m0, m1, ...
        classes: C; the classes are balanced.
        dense: Label maps for segmentation instead of one class per sample.
        kind: Of every modality; a vector by default, an image for dense prediction.
        samples: Of the training part; validation and test have half as many each.
        size: Length of a vector, or side of an image.
        noise: Standard deviation of the noise beside a signal of root mean square 1 per bit.
        missing_rate: Probability that a sample really lacks a modality, in every part; at least one stays.
        seed: Of everything drawn here.
    """

    modalities: int = Field(2, ge=1, le=4, description="how many: m0, m1, ...")
    classes: int = Field(4, ge=2, le=64, description="balanced classes")
    dense: bool = Field(False, description="label maps for segmentation instead of one class per sample")
    kind: Literal["vector", "image"] | None = Field(None, description="vector by default, image for dense prediction")
    samples: int = Field(256, ge=2, description="of the training part; validation and test have half as many each")
    size: int = Field(16, ge=PATCHES, description="length of a vector, or side of an image")
    noise: float = Field(0.5, ge=0, description="deviation of the noise; the signal of a bit has root mean square 1")
    missing_rate: float = Field(0.0, ge=0, lt=1, description="share of really absent modalities; at least one stays")
    seed: int = Field(0, ge=0, description="seed of everything drawn here")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.dense and self.kind == "vector":
            raise ValueError("dense: true needs kind: image (or none given); a vector has no pixels")
        kind = self.kind or ("image" if self.dense else "vector")
        most = max(len(bits) for bits in seen_bits(self.modalities, self.classes))
        room = self.size if kind == "vector" else CHANNELS
        if most > room:
            raise ValueError(
                f"{self.classes} classes over {self.modalities} modalities put {most} bits into one of them, "
                f"but its {room} values hold at most {room}; ask for fewer classes or more modalities"
            )
        return self


def seen_bits(modalities: int, classes: int) -> list[tuple[int, ...]]:
    """The bits that each modality sees, see the module's docstring."""
    bits = math.ceil(math.log2(classes))
    period = min(bits, modalities)
    return [tuple(bit for bit in range(bits) if (bit - m) % period == 0) for m in range(modalities)]


def bits_of(labels: Tensor, bits: tuple[int, ...]) -> Tensor:
    """Binary digits of int64 labels, one more axis at the end: (..., len(bits)) of 0 and 1."""
    return (labels.unsqueeze(-1) >> torch.tensor(bits, dtype=torch.int64)) & 1


def best_accuracy(combination: tuple[int, ...], modalities: int, classes: int) -> float:
    """What the best classifier reaches without noise when it sees the modalities of ``combination`` alone."""
    seen = seen_bits(modalities, classes)
    bits = tuple(sorted({bit for m in combination for bit in seen[m]}))
    patterns = bits_of(torch.arange(classes), bits)
    return len({tuple(pattern) for pattern in patterns.tolist()}) / classes


@dataclass(frozen=True)
class Recipe:
    """How samples are made.

    Args:
        seen: Bits of each modality.
        directions: Modality by modality, (bits, D) of root mean square 1, orthogonal to each other.
        classes: C.
        size: Side of an image; without use for a vector.
        kind: Of every modality.
        dense: Whether targets are maps.
        noise: Standard deviation.
        missing_rate: See `SyntheticOptions`.
        seed: See `SyntheticOptions`.
    """

    seen: list[tuple[int, ...]]
    directions: list[Tensor]
    classes: int
    size: int
    kind: Literal["vector", "image"]
    dense: bool
    noise: float
    missing_rate: float
    seed: int

    def part(self, name: str, count: int) -> ArrayDataset:
        """Make ``count`` samples."""
        generator = generator_for(NAME, name, self.seed)
        target = self._targets(count, generator)
        inputs = {
            f"m{m}": self._signal(target, bits, directions, generator)
            for m, (bits, directions) in enumerate(zip(self.seen, self.directions, strict=True))
        }
        observed = draw_observed(count, len(self.seen), self.missing_rate, generator)
        return ArrayDataset(inputs, target, [f"{name}{number:05d}" for number in range(count)], observed)

    def _targets(self, count: int, generator: torch.Generator) -> Tensor:
        if not self.dense:
            return balanced(count, self.classes, generator)
        patches = balanced(count * PATCHES * PATCHES, self.classes, generator).view(count, PATCHES, PATCHES)
        place = torch.arange(self.size) * PATCHES // self.size
        maps: Tensor = patches[:, place][:, :, place]  # (N, H, W)
        return maps

    def _signal(self, target: Tensor, bits: tuple[int, ...], directions: Tensor, generator: torch.Generator) -> Tensor:
        signal = (2.0 * bits_of(target, bits) - 1) @ directions  # (N, D) or (N, H, W, D)
        if self.dense:
            signal = signal.movedim(-1, 1)
        elif self.kind == "image":
            signal = signal[:, :, None, None].expand(-1, -1, self.size, self.size)
        return signal + self.noise * torch.randn(signal.shape, generator=generator)


def balanced(count: int, classes: int, generator: torch.Generator) -> Tensor:
    """Labels in random order, each class as often as the others up to one."""
    return (torch.arange(count) % classes)[torch.randperm(count, generator=generator)]


def draw_observed(count: int, modalities: int, missing_rate: float, generator: torch.Generator) -> Tensor:
    """(N, M) bool, each False with ``missing_rate``; a row that would lose all keeps one, drawn evenly."""
    observed = torch.rand(count, modalities, generator=generator) >= missing_rate
    kept = torch.randint(modalities, (count,), generator=generator)
    nothing = ~observed.any(dim=1)
    observed[nothing, kept[nothing]] = True
    return observed


def orthogonal_directions(count: int, dimensions: int, generator: torch.Generator) -> Tensor:
    """(count, D) orthogonal rows of root mean square 1; needs count <= D."""
    basis, _ = torch.linalg.qr(torch.randn(dimensions, count, generator=generator))
    rows: Tensor = basis.T * math.sqrt(dimensions)
    return rows


def build_synthetic(
    modalities: int,
    classes: int,
    dense: bool,
    kind: Literal["vector", "image"] | None,
    samples: int,
    size: int,
    noise: float,
    missing_rate: float,
    seed: int,
) -> DataSplits:
    """Training, validation and test part from one recipe."""
    kind = kind or ("image" if dense else "vector")
    shape = (size,) if kind == "vector" else (CHANNELS, size, size)
    seen = seen_bits(modalities, classes)
    directions = [
        orthogonal_directions(len(bits), shape[0], generator_for(NAME, "directions", m, seed))
        for m, bits in enumerate(seen)
    ]
    recipe = Recipe(seen, directions, classes, size, kind, dense, noise, missing_rate, seed)
    held_out = max(1, round(HELD_OUT_SHARE * samples))
    train, validation, test = (
        recipe.part(name, count) for name, count in (("train", samples), ("validation", held_out), ("test", held_out))
    )
    return DataSplits(
        tuple(Modality(f"m{m}", kind, shape) for m in range(modalities)),
        "segmentation" if dense else "classification",
        tuple(f"class{label}" for label in range(classes)),
        train,
        test,
        validation,
        train_labels=None if dense else train.target,
        notes=facts(modalities, classes, samples, held_out, seed),
    )


def facts(modalities: int, classes: int, samples: int, held_out: int, seed: int) -> Notes:
    """What the result file says of the data."""
    every = [combination for r in range(modalities) for combination in combinations(range(modalities), r + 1)]
    best = {"+".join(f"m{m}" for m in combo): best_accuracy(combo, modalities, classes) for combo in every}
    return {
        "split": f"three independent draws, seed {seed}",
        "train": samples,
        "validation": held_out,
        "test": held_out,
        "best accuracy": ", ".join(f"{name} {value:.3g}" for name, value in best.items()),
        "licence": "generated by robustmm",
        "citation": "none; synthetic data are no evidence about the real world",
    }


@hookimpl
def robustmm_register_datasets(register: Callable[[Component], None]) -> None:
    """Offer the generator."""
    register(
        Component(
            NAME,
            build_synthetic,
            SyntheticOptions,
            "Seeded samples or label maps of 1 to 4 modalities whose classes need more than one of them.",
            "robustmm",
        )
    )
