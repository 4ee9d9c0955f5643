"""What data sets promise."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from robustmm.data.collate import Collate
from robustmm.data.dataset import Dataset, DataSplits
from robustmm.registry import Component
from robustmm.testing.contract import build, check, during, require
from robustmm.types import VOID, Modality, Sample

#: Samples that are looked at in a part, evenly spread.
LOOKED_AT = 40


@lru_cache(maxsize=1)
def splits_of(component: Component) -> DataSplits:
    """The data set, built once for all checks."""
    splits: DataSplits = build(component)
    return splits


def parts_of(splits: DataSplits) -> dict[str, Dataset]:
    """Parts by name."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {name: part for name, part in parts.items() if part is not None}


def places(part: Dataset) -> list[int]:
    """Indices of samples to look at, the first and the last among them."""
    count = len(part)
    return sorted({round(place * (count - 1) / (LOOKED_AT - 1)) for place in range(LOOKED_AT)})


def samples_of(part: Dataset) -> Iterator[tuple[int, Sample]]:
    """Some samples with their indices."""
    return ((index, part[index]) for index in places(part))


def require_value(modality: Modality, value: Tensor) -> None:
    """Fail unless a value is as its modality says."""
    shape = tuple(value.shape)
    require(shape == modality.shape, f"{modality.name} has shape {shape}, declared is {modality.shape}")
    known = value.is_floating_point() or value.dtype == torch.uint8
    require(known, f"{modality.name} is {value.dtype}, neither a float nor 8-bit")
    require(value.isfinite().all(), f"{modality.name} is not finite; give None where a modality is absent")


def require_label_map(target: Tensor, num_classes: int) -> None:
    """Fail unless a target is a map of classes and void."""
    require(target.ndim == 2, f"the label map has shape {tuple(target.shape)}, not (H, W)")
    wrong = target[(target < 0) | (target >= num_classes) & (target != VOID)]
    require(not wrong.numel(), f"label {wrong[:1].tolist()} is neither a class nor {VOID} for void")


def require_quantities(target: Tensor, count: int) -> None:
    """Fail unless a target is as many finite floats as there are quantities; a single one may be a scalar."""
    shapes = ((), (1,)) if count == 1 else ((count,),)
    require(target.is_floating_point(), f"the target is {target.dtype}, not a float")
    require(tuple(target.shape) in shapes, f"the target has shape {tuple(target.shape)} for {count} quantities")
    require(target.isfinite().all(), f"the target is {target.tolist()}, not finite")


@check("dataset")
def parts_are_not_empty(component: Component) -> None:
    """Training and test part have samples, modalities have different names, classes are at least two.

    Of regression one quantity is enough.
    """
    splits = splits_of(component)
    for name, part in parts_of(splits).items():
        require(len(part) > 0, f"the {name} part is empty")
    names = [modality.name for modality in splits.modalities]
    require(bool(names) and len(set(names)) == len(names), f"modalities need names of their own, got {names}")
    least = 1 if splits.task == "regression" else 2
    require(len(set(splits.classes)) == len(splits.classes) >= least, f"classes are {splits.classes}")
    require(bool(splits.task), "task must name a task")


@check("dataset")
def samples_are_as_declared(component: Component) -> None:
    """Values have their modality's shape and a known type; samples have a modality, a target of their task, a name."""
    splits = splits_of(component)
    known = {modality.name: modality for modality in splits.modalities}
    for name, part in parts_of(splits).items():
        for index, sample in samples_of(part):
            with during(f"sample {index} of {name}"):
                there = {key: value for key, value in sample["inputs"].items() if value is not None}
                require(bool(there), "it has no modality at all")
                for key, value in there.items():
                    require(key in known, f"'{key}' is none of the modalities {', '.join(known)}")
                    require_value(known[key], value)
                require_target(sample["target"], splits)
                require(isinstance(sample["id"], str) and bool(sample["id"]), "the id must be a text")


def require_target(target: Tensor, splits: DataSplits) -> None:
    """Fail unless a target is of the data set's task."""
    if splits.task == "regression":
        require_quantities(target, len(splits.classes))
        return
    require(target.dtype == torch.int64, f"the target is {target.dtype}, not int64")
    if splits.task == "classification":
        require(target.shape == (), f"the target has shape {tuple(target.shape)}, not ()")
        require(0 <= int(target) < len(splits.classes), f"label {int(target)} is not a class")
    if splits.task == "segmentation":
        require_label_map(target, len(splits.classes))


@check("dataset")
def names_are_unique(component: Component) -> None:
    """No sample stands twice, neither within a part nor in two parts."""
    owners: dict[str, str] = {}
    for name, part in parts_of(splits_of(component)).items():
        known = getattr(part, "ids", None)
        for id_ in known if known is not None else [part[index]["id"] for index in range(len(part))]:
            require(id_ not in owners, f"sample '{id_}' of {name} stands in {owners.get(id_)} as well")
            owners[id_] = name


@check("dataset")
def equal_options_give_equal_data(component: Component) -> None:
    """Built twice it holds the same samples, and a sample read twice is the same."""
    first, second = splits_of(component), build(component)
    require(first.modalities == second.modalities, "modalities differ between two builds")
    require(first.classes == second.classes, "classes differ between two builds")
    for (name, part), (_, again) in zip(parts_of(first).items(), parts_of(second).items(), strict=True):
        require(len(part) == len(again), f"{name} has {len(part)} samples, then {len(again)}")
        for index, sample in samples_of(part):
            require_same(sample, again[index], f"sample {index} of {name} in two builds")
            require_same(sample, part[index], f"sample {index} of {name} read twice")


def require_same(ours: Sample, theirs: Sample, what: str) -> None:
    """Fail unless two samples are equal."""
    require(ours["id"] == theirs["id"], f"{what}: ids {ours['id']} and {theirs['id']}")
    require(torch.equal(ours["target"], theirs["target"]), f"{what}: targets differ")
    for name, value in ours["inputs"].items():
        other = theirs["inputs"].get(name)
        same = other is None if value is None else other is not None and torch.equal(value, other)
        require(same, f"{what}: {name} differs")


@check("dataset")
def samples_make_batches(component: Component) -> None:
    """Samples can be stacked; a part that takes many at once gives what stacking single ones gives."""
    splits = splits_of(component)
    collate = Collate(splits.modalities)
    for name, part in parts_of(splits).items():
        chosen = list(samples_of(part))[:8]
        with during(f"the {name} part"):
            batch = collate(chosen)
            require(len(batch) == len(chosen), f"a batch of {len(batch)} from {len(chosen)} samples")
            take = getattr(part, "take", None)
            if take is None:
                continue
            taken = collate(take([index for index, _ in chosen]))
            require(taken.ids == batch.ids, "take gives other ids than single samples")
            require(torch.equal(taken.observed, batch.observed), "take gives another observed than single samples")
            require(torch.equal(taken.target, batch.target), "take gives other targets than single samples")
            for key, value in batch.inputs.items():
                require(torch.equal(taken.inputs[key], value), f"take gives another {key} than single samples")


@check("dataset")
def labels_and_groups_fit_training(component: Component) -> None:
    """`train_labels` are the targets of training, `train_groups` are as many."""
    splits = splits_of(component)
    count = len(splits.train)
    for name, values in (("train_labels", splits.train_labels), ("train_groups", splits.train_groups)):
        if values is not None:
            require(values.shape == (count,), f"{name} has shape {tuple(values.shape)}, training has {count} samples")
            require(values.dtype == torch.int64, f"{name} is {values.dtype}, not int64")
    if splits.train_labels is not None:
        for index, sample in samples_of(splits.train):
            same = torch.equal(sample["target"], splits.train_labels[index])
            require(same, f"train_labels[{index}] is not the target of that sample")


@check("dataset")
def augmentation_depends_on_the_generator_alone(component: Component) -> None:
    """Where there is augmentation, equal generators augment alike, samples are not written to, and shapes stay."""
    splits = splits_of(component)
    augment = getattr(splits.train, "augment", None)
    if augment is None:
        return
    known = {modality.name: modality for modality in splits.modalities}
    for index, sample in list(samples_of(splits.train))[:4]:
        before = copy.deepcopy(sample)  # samples may be views of what the data set holds
        first = augment(splits.train[index], torch.Generator().manual_seed(0))
        torch.rand(1)
        second = augment(splits.train[index], torch.Generator().manual_seed(0))
        require_same(splits.train[index], before, f"sample {index} before and after augmentation")
        require_same(first, second, f"sample {index} augmented with equal generators")
        for name, value in first["inputs"].items():
            if value is not None:
                require_value(known[name], value)
        if splits.task == "segmentation":
            require_label_map(first["target"], len(splits.classes))
            sizes = {tuple(value.shape[1:]) for value in first["inputs"].values() if value is not None}
            size = tuple(first["target"].shape)
            require(sizes == {size}, f"augmentation gives a label map of {size} beside inputs of {sizes}")
