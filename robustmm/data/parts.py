"""Parts of a data set as a run uses them: training, validation (given, or carved from training) and test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from robustmm.data.dataset import Dataset, DataSplits
from robustmm.errors import DataError, did_you_mean
from robustmm.masks import AGGREGATES
from robustmm.seeding import generator_for
from robustmm.types import Batch, Modality, Sample

#: `carve` takes at least one sample of every class that has two, so that no fraction is too small.
NOTHING_TO_CARVE = (
    "; whatever data.validation.fraction is, every class keeps a sample for training and none has a second: "
    "add training samples, or mark samples (in a manifest: rows) as validation"
)


class Part:
    """Chosen samples of a data set. Keys are (position, epoch), so that augmentation depends on both and the seed.

    Args:
        dataset: Where the samples come from.
        indices: Their indices there.
        augment_seed: Seed of the augmentation; None means none.
        at_training_size: Whether samples without augmentation have the sizes of training all the same.
    """

    def __init__(
        self,
        dataset: Dataset,
        indices: Sequence[int],
        *,
        augment_seed: int | None = None,
        at_training_size: bool = False,
    ) -> None:
        self.dataset = dataset
        self.indices = list(indices)
        self.augment_seed = augment_seed
        self.at_training_size = at_training_size

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, Sample]:
        position, epoch = key
        sample = self.dataset[self.indices[position]]
        augment = getattr(self.dataset, "augment", None)
        if augment is not None and self.augment_seed is not None:
            sample = augment(sample, generator_for(self.augment_seed, "augment", epoch, position))
        elif self.at_training_size and hasattr(self.dataset, "at_training_size"):
            sample = self.dataset.at_training_size(sample)
        return position, sample

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Sequence[tuple[int, Sample]] | Batch:
        """Several at once; as a batch where the data set holds whole columns in memory."""
        take = getattr(self.dataset, "take", None)
        if take is None or (self.augment_seed is not None and hasattr(self.dataset, "augment")):
            return [self[key] for key in keys]
        positions = [position for position, _ in keys]
        batch: Batch = take([self.indices[position] for position in positions])
        return replace(batch, index=torch.tensor(positions))

    def targets(self) -> Iterator[Tensor]:
        """Every sample's label, read alone where the data set can, without augmentation."""
        read = getattr(self.dataset, "target", None)  # a method, or the tensor of all labels of an ArrayDataset
        for index in self.indices:
            yield read(index) if callable(read) else self.dataset[index]["target"]

    def without_augmentation(self) -> Part:
        """The same samples without random changes, still in the sizes of training, so that they make batches."""
        return Part(self.dataset, self.indices, at_training_size=True)


@dataclass(frozen=True)
class Parts:
    """What a run trains, selects and tests on.

    Args:
        modalities: Columns of the run.
        classes: Class names.
        train: With augmentation where the data set has one.
        validation: Never test.
        test: Used once, after selection.
        facts: For the result file: sizes, where validation comes from, the data set's own notes.
        colours: Of the classes, for pictures; None where the data set names none.
    """

    modalities: tuple[Modality, ...]
    classes: tuple[str, ...]
    train: Part
    validation: Part
    test: Part
    facts: dict[str, str | int | float]
    colours: tuple[tuple[int, int, int], ...] | None = None

    def facts_for_people(self) -> dict[str, str | int | float]:
        """The facts with each count of samples once, and where validation was carved, the samples before that."""
        carved = self.validation.dataset is self.train.dataset
        whole = len(self.train) + (len(self.validation) if carved else 0)
        counts = {"train": whole, "val": len(self.validation), "test": len(self.test)}
        facts = {key: value for key, value in self.facts.items() if counts.get(key) != value}
        if carved:
            facts["validation"] = f"{facts['validation']}; training had {whole} samples before"
        return facts


def split_parts(
    splits: DataSplits, *, seed: int, fraction: float, carve_seed: int, modalities: Sequence[str] | None = None
) -> Parts:
    """Make the parts of a run.

    Args:
        splits: From the data set plugin.
        seed: The run's seed, for augmentation.
        fraction: Share of training held out where the data set has no validation part.
        carve_seed: Seed of that choice; the same for every run that is to be compared.
        modalities: A subset or another order of the columns; None means all.
    """
    columns = choose_modalities(splits.modalities, modalities)
    splits = _reading_only(splits, [column.name for column in columns])
    _check_labels(splits)
    facts = dict(splits.notes)
    everything = list(range(len(splits.train)))
    if splits.validation is not None:
        validation = Part(splits.validation, range(len(splits.validation)))
        facts["validation"] = "the data set's own"
    else:
        held_out = carve(len(everything), splits.train_labels, splits.train_groups, fraction=fraction, seed=carve_seed)
        validation = Part(splits.train, held_out)
        everything = sorted(set(everything) - set(held_out))
        by = "samples" if splits.train_labels is None else "classes"
        by = by if splits.train_groups is None else "groups"
        facts["validation"] = f"carved from training by {by}, fraction {fraction}, seed {carve_seed}"
    train = Part(splits.train, everything, augment_seed=seed)
    test = Part(splits.test, range(len(splits.test)))
    facts |= {"train_samples": len(train), "validation_samples": len(validation), "test_samples": len(test)}
    for name, part in (("training", train), ("validation", validation), ("test", test)):
        if len(part) == 0:
            carved = name == "validation" and splits.validation is None
            raise DataError(f"the {name} part is empty ({facts['validation']}){NOTHING_TO_CARVE if carved else ''}")
    return Parts(columns, splits.classes, train, validation, test, facts, splits.colours)


def _reading_only(splits: DataSplits, names: Sequence[str]) -> DataSplits:
    """The same samples, without reading what the run does not use, where the data set can leave it."""
    parts = {
        name: part.only(names)
        for name in ("train", "validation", "test")
        if hasattr(part := getattr(splits, name), "only")
    }
    return replace(splits, **parts)


def choose_modalities(known: Sequence[Modality], names: Sequence[str] | None) -> tuple[Modality, ...]:
    """The named modalities in the given order.

    Raises:
        DataError: a name is unknown or stands twice, or the data set gives one that cannot be used.
    """
    _check_names([modality.name for modality in known])
    if names is None:
        return tuple(known)
    by_name = {modality.name: modality for modality in known}
    for name in names:
        if name not in by_name:
            raise DataError(
                f"data.modalities: no modality '{name}'{did_you_mean(name, by_name)} "
                f"(the data set has {', '.join(by_name)})"
            )
    if len(set(names)) != len(names) or not names:
        raise DataError(f"data.modalities: name each modality once, got {list(names)}")
    return tuple(by_name[name] for name in names)


def _check_names(names: Sequence[str]) -> None:
    """Modules are kept in an `nn.ModuleDict` by modality, and scores in one table with the summaries."""
    for name in names:
        if "+" in name or not name.isidentifier():
            raise DataError(
                f"the data set calls a modality '{name}'; a name consists of letters, digits and underscores and does "
                f"not begin with a digit ('+' joins modalities, '.' and '/' part keys)"
            )
        if hasattr(nn.ModuleDict(), name):
            raise DataError(f"the data set calls a modality '{name}', which torch's ModuleDict keeps for itself")
        if name in AGGREGATES:
            raise DataError(f"the data set calls a modality '{name}', which is the name of a summary in every result")
    if len(set(names)) != len(names) or not names:
        raise DataError(f"the data set must name each modality once, it has {list(names)}")


def _check_labels(splits: DataSplits) -> None:
    """A label that is no class would end in an index error of torch in the first epoch, on a GPU in an abort."""
    labels = splits.train_labels
    for name, values in (("train_labels", labels), ("train_groups", splits.train_groups)):
        if values is not None and len(values) != len(splits.train):
            raise DataError(f"{name} has {len(values)} values for {len(splits.train)} training samples")
    if labels is None or not len(labels):
        return
    low, high = (int(value) for value in labels.aminmax())
    if low < 0 or high >= len(splits.classes):
        wrong = low if low < 0 else high
        raise DataError(f"train_labels holds {wrong}; labels are 0 to {len(splits.classes) - 1}, one per class")


def carve(count: int, labels: Tensor | None, groups: Tensor | None, *, fraction: float, seed: int) -> list[int]:
    """Indices to hold out of ``count`` training samples.

    Groups stay whole and are taken in random order until the fraction is reached, at least one and never all. Without
    groups every class gives its share, at least one sample where it has two. Without labels samples are drawn.

    Args:
        count: Samples in training.
        labels: (N,) int64 or None.
        groups: (N,) int64 or None; goes before labels.
        fraction: In (0, 1).
        seed: Named in the result.
    """
    generator = generator_for(seed, "carve")
    order = torch.randperm(count, generator=generator)
    if groups is not None:
        return _carve_groups(groups, fraction, generator)
    strata = torch.zeros(count, dtype=torch.int64) if labels is None else labels
    held_out: list[int] = []
    for stratum in torch.unique(strata).tolist():
        members = order[strata[order] == stratum].tolist()
        take = max(round(fraction * len(members)), 1) if len(members) > 1 else 0
        held_out += members[: min(take, len(members) - 1)]
    return sorted(held_out)


def _carve_groups(groups: Tensor, fraction: float, generator: torch.Generator) -> list[int]:
    names, sizes = torch.unique(groups, return_counts=True)
    if len(names) < 2:
        raise DataError("validation cannot be carved by groups: the training part has one group only")
    order = torch.randperm(len(names), generator=generator)
    before = sizes[order].cumsum(0) - sizes[order]
    take = (before < fraction * len(groups)).sum().clamp(1, len(names) - 1)
    return torch.isin(groups, names[order[:take]]).nonzero().squeeze(1).tolist()
