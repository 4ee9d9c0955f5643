"""A walk through every sample of a data set: what is there, what is missing, what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustmm.data.collate import fits
from robustmm.data.dataset import Dataset, DataSplits
from robustmm.data.tallies import LabelTally, QuantityTally, ValueTally
from robustmm.errors import DataError
from robustmm.types import VOID, Modality, Sample

#: So many unreadable samples or cells are named; the others are counted.
NAMED = 10

#: Hands on the indices of a part, and may show how far it is.
Track = Callable[[str, range], Iterable[int]]


@dataclass
class PartSurvey:
    """What one part holds.

    Args:
        samples: Length of the part.
        labels: By class, and sizes of label maps; empty for regression.
        values: Modality -> sizes, range and mean of its raw values.
        missing: Modality -> samples that lack it.
        readable: Samples that could be read.
        quantities: Of regression; None elsewhere.
        unreadable: Where the data set counts unreadable content as absent, one text per place; from the part's own
            ``unreadable_cells``, which a data set may have.
    """

    samples: int
    labels: LabelTally
    values: Mapping[str, ValueTally]
    missing: Counter[str] = field(default_factory=Counter)
    readable: int = 0
    quantities: QuantityTally | None = None
    unreadable: tuple[str, ...] = ()

    @property
    def per_class(self) -> Tensor:
        """See `LabelTally`."""
        return self.labels.per_class


class Findings:
    """What is wrong, equal problems of many samples as one line."""

    def __init__(self) -> None:
        self._where: dict[str, list[str]] = {}
        self._one_by_one: set[str] = set()

    def add(self, problem: str, where: str = "", *, one_by_one: bool = False) -> None:
        """Note a problem, and the sample that has it; ``one_by_one`` gives each of the first samples its own line."""
        self._where.setdefault(problem, []).append(where)
        if one_by_one:
            self._one_by_one.add(problem)

    def lines(self) -> list[str]:
        """The problems in the order in which they were found."""
        lines = []
        for problem, where in self._where.items():
            one_by_one = problem in self._one_by_one
            lines += [f"{problem}: {text}" for text in first_few(where)] if one_by_one else [_line(problem, where)]
        return lines


def _line(problem: str, where: list[str]) -> str:
    if not where[0]:
        return problem
    return f"{problem}: {where[0]}" + (f" (and {len(where) - 1} more)" if len(where) > 1 else "")


def first_few(texts: Sequence[str]) -> list[str]:
    """The first texts, and how many more there are."""
    more = [f"... and {len(texts) - NAMED} more"] if len(texts) > NAMED else []
    return [*texts[:NAMED], *more]


@dataclass(frozen=True)
class Survey:
    """What a data set holds.

    Args:
        parts: By name: train, validation where there is one, test.
        problems: One line each; empty where all is well.
    """

    parts: Mapping[str, PartSurvey]
    problems: list[str] = field(default_factory=list)


def parts_of(splits: DataSplits) -> dict[str, Dataset]:
    """The parts that there are, by name."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {name: part for name, part in parts.items() if part is not None}


def survey(splits: DataSplits, track: Track = lambda part, indices: indices) -> Survey:
    """Read every sample of every part, without augmentation.

    Args:
        splits: From the data set plugin.
        track: Called with each part's name and indices; gives the indices back, and may draw a bar.
    """
    walk = _Walk(splits)
    parts = {name: walk.through(name, part, track(name, range(len(part)))) for name, part in parts_of(splits).items()}
    walk.judge(parts)
    return Survey(parts, walk.findings.lines())


class _Walk:
    """What is kept while going through the parts.

    Args:
        splits: From the data set plugin.
    """

    def __init__(self, splits: DataSplits) -> None:
        self.splits = splits
        self.known = {modality.name: modality for modality in splits.modalities}
        self.continuous = splits.task == "regression"
        self.classes = len(splits.classes)
        self.findings = Findings()
        #: Id -> part in which it was first.
        self.owners: dict[str, str] = {}
        #: 0 for one label per sample, 2 for label maps.
        self.target_axes: int | None = None

    def through(self, name: str, part: Dataset, indices: Iterable[int]) -> PartSurvey:
        """Read a part."""
        values = {key: ValueTally(modality.scaling.invalid) for key, modality in self.known.items()}
        found = PartSurvey(len(part), LabelTally.of(0 if self.continuous else self.classes), values)
        found.quantities = QuantityTally(self.classes) if self.continuous else None
        found.unreadable = tuple(getattr(part, "unreadable_cells", ()))
        for index in indices:
            try:
                sample = part[index]
            except (DataError, OSError, ValueError) as error:
                where = " ".join(str(error).split())
                self.findings.add(f"{name}: a sample cannot be read", where, one_by_one=True)
                continue
            found.readable += 1
            label = f"sample '{sample['id']}'"
            self._check_id(name, sample["id"])
            self._check_inputs(name, sample, label, found)
            if found.quantities is None:
                self._count_labels(name, sample["target"], label, found.labels)
            else:
                self._count_quantities(name, sample["target"], label, found.quantities)
            if name == "train":
                self._check_train_label(index, sample["target"], label)
        return found

    def _check_id(self, name: str, given: str) -> None:
        if given in self.owners:
            self.findings.add(f"{name}: the id stands in {self.owners[given]} already", f"'{given}'")
        self.owners.setdefault(given, name)

    def _check_inputs(self, name: str, sample: Sample, label: str, found: PartSurvey) -> None:
        there = {key: value for key, value in sample["inputs"].items() if value is not None}
        found.missing.update(self.known.keys() - there.keys())
        if not there:
            self.findings.add(f"{name}: a sample has no modality at all", label)
        file_sizes = getattr(sample["inputs"], "file_sizes", {})  # of pictures that are resized when they are read
        for key, value in there.items():
            if key not in self.known:
                self.findings.add(f"{name}: '{key}' is none of the modalities {', '.join(self.known)}", label)
                continue
            found.values[key].add(value, file_sizes.get(key))
            problem = problem_of(value, self.known[key])
            if problem:
                self.findings.add(f"{name}: {key} {problem}", label)

    def _count_labels(self, name: str, target: Tensor, label: str, labels: LabelTally) -> None:
        if self.target_axes is None:
            self.target_axes = target.ndim
        if target.dtype != torch.int64 or target.ndim != self.target_axes:
            wanted = f"int64 with {self.target_axes} axes as in the first sample"
            self.findings.add(f"{name}: the target is {target.dtype} {tuple(target.shape)}, not {wanted}", label)
            return
        wrong = labels.add(target)
        if len(wrong):
            accepted = f"0..{self.classes - 1}" + (f", or {VOID} for void" if target.ndim else "")
            self.findings.add(f"{name}: label {int(wrong[0])} is not a class, expected {accepted}", label)

    def _count_quantities(self, name: str, target: Tensor, label: str, quantities: QuantityTally) -> None:
        shapes = ((), (1,)) if self.classes == 1 else ((self.classes,),)
        if not target.is_floating_point() or tuple(target.shape) not in shapes:
            wanted = f"a float of shape {' or '.join(map(str, shapes))}"
            self.findings.add(f"{name}: the target is {target.dtype} {tuple(target.shape)}, not {wanted}", label)
        elif not target.isfinite().all():
            self.findings.add(f"{name}: the target is not finite", label)
        else:
            quantities.add(target)

    def _check_train_label(self, index: int, target: Tensor, label: str) -> None:
        labels = self.splits.train_labels
        if labels is not None and index < len(labels) and not torch.equal(labels[index], target):
            self.findings.add("train: train_labels differs from the sample's target", label)

    def judge(self, parts: Mapping[str, PartSurvey]) -> None:
        """What only the whole shows."""
        for name, part in parts.items():
            if not part.samples:
                self.findings.add(f"the {name} part is empty")
        train = parts["train"]
        if train.quantities is not None:
            self._judge_quantities(train.quantities)
        unseen = [f"'{self.splits.classes[index]}'" for index in (train.per_class == 0).nonzero().flatten().tolist()]
        if unseen:
            self.findings.add(f"train: no sample of class {', '.join(first_few(unseen))}")
        for modality in self.known:
            if train.readable and train.missing[modality] == train.readable:
                self.findings.add(f"train: no sample has {modality}")
        for what, values in (("train_labels", self.splits.train_labels), ("train_groups", self.splits.train_groups)):
            if values is not None and tuple(values.shape) != (train.samples,):
                self.findings.add(f"{what} has shape {tuple(values.shape)}, training has {train.samples} samples")

    def _judge_quantities(self, train: QuantityTally) -> None:
        for name, quantity in zip(self.splits.classes, train.result(), strict=True):
            if quantity["deviation"] == 0:
                self.findings.add(f"train: {name} is {quantity['mean']:g} in every sample, there is nothing to learn")


def problem_of(value: Tensor, modality: Modality) -> str:
    """What is wrong with a modality's value; empty if nothing is."""
    if not fits(tuple(value.shape), modality):
        return f"has shape {tuple(value.shape)}, declared is {modality.shape}"
    if not value.isfinite().all():
        return "holds values that are not finite"
    return ""
