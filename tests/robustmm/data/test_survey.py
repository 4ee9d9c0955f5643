"""The walk through a data set: what it counts, and each thing that can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from robustmm import VOID, ArrayDataset, DataError, DataSplits, Modality, Sample, Scaling
from robustmm.data.survey import survey

MODALITIES = (Modality("rgb", "vector", (2,)), Modality("depth", "vector", (1,)))


def part(prefix: str, labels: list[int], observed: list[list[bool]] | None = None) -> ArrayDataset:
    count = len(labels)
    inputs = {"rgb": torch.zeros(count, 2), "depth": torch.zeros(count, 1)}
    shown = None if observed is None else torch.tensor(observed)
    return ArrayDataset(inputs, torch.tensor(labels), [f"{prefix}{row}" for row in range(count)], shown)


def splits() -> DataSplits:
    train = part("train", [0, 0, 1], [[True, True], [True, False], [True, False]])
    return DataSplits(MODALITIES, "classification", ("a", "b"), train, part("test", [1, 1]), train_labels=train.target)


class Edited:
    """A part whose samples go through a function."""

    def __init__(self, part: ArrayDataset, edit: Callable[[Sample], Sample]) -> None:
        self.part, self.edit = part, edit

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int, /) -> Sample:
        return self.edit(self.part[index])


def unreadable(sample: Sample) -> Sample:
    raise DataError(f"{sample['id']}.png: not a readable image")


def changed(**inputs: torch.Tensor | None) -> Callable[[Sample], Sample]:
    return lambda sample: {**sample, "inputs": {**sample["inputs"], **inputs}}


def target(value: torch.Tensor) -> Callable[[Sample], Sample]:
    return lambda sample: {**sample, "target": value}


def test_survey__counts_samples_classes_and_missing_modalities() -> None:
    found = survey(splits())
    assert found.problems == []
    assert list(found.parts) == ["train", "test"]
    train = found.parts["train"]
    assert (train.samples, train.readable, train.per_class.tolist()) == (3, 3, [2, 1])
    assert (train.missing["rgb"], train.missing["depth"]) == (0, 2)
    assert found.parts["test"].per_class.tolist() == [0, 2]


def dense_splits(maps: torch.Tensor) -> DataSplits:
    """Two samples of two pixels each in both parts; a depth of 0 says that nothing was measured."""
    modalities = (Modality("depth", "image", (1, 1, 2), Scaling(invalid=0.0), "mm"),)
    values = torch.tensor([[0, 500], [1000, 3000]], dtype=torch.int32).view(2, 1, 1, 2)
    train, test = (ArrayDataset({"depth": values}, maps, [f"{part}{row}" for row in range(2)]) for part in "ab")
    return DataSplits(modalities, "segmentation", ("wall", "floor"), train, test)


def test_survey__counts_pixels_and_maps_of_each_class_and_void_ones() -> None:
    found = survey(dense_splits(torch.tensor([[[0, 1, 1], [1, VOID, VOID]], [[0, 0, 0], [0, 0, 0]]])))
    assert found.problems == []
    labels = found.parts["train"].labels
    assert (labels.per_class.tolist(), labels.maps.tolist()) == ([7, 3], [2, 1])
    assert (labels.void, labels.all_void, labels.sizes) == (2, 0, {(2, 3): 2})


def test_survey__measures_values_without_those_that_say_not_measured() -> None:
    depth = survey(dense_splits(torch.tensor([[[0, 1]], [[VOID, VOID]]]))).parts["test"].values["depth"]
    assert (depth.lowest, depth.highest, depth.mean) == (500, 3000, 1500)
    assert (depth.invalid_share, depth.sizes) == (0.25, {(1, 2): 2})


def test_survey__names_labels_of_maps_that_are_no_class_and_counts_maps_of_void_alone() -> None:
    found = survey(dense_splits(torch.tensor([[[0, 1]], [[VOID, VOID]]])))
    assert found.parts["train"].labels.all_void == 1
    found = survey(dense_splits(torch.tensor([[[0, 2]], [[VOID, VOID]]])))
    assert found.problems == [
        "train: label 2 is not a class, expected 0..1, or 255 for void: sample 'a0'",
        "test: label 2 is not a class, expected 0..1, or 255 for void: sample 'b0'",
        "train: no sample of class 'floor'",
    ]


def test_survey__allows_maps_of_another_height_and_width() -> None:
    sound = dense_splits(torch.tensor([[[0, 1]], [[0, 1]]]))
    assert isinstance(sound.test, ArrayDataset)
    larger = replace(sound, test=Edited(sound.test, changed(depth=torch.ones(1, 4, 6))))
    found = survey(larger)
    assert found.problems == []
    assert found.parts["test"].values["depth"].sizes == {(4, 6): 2}
    broader = replace(sound, test=Edited(sound.test, changed(depth=torch.ones(2, 1, 2))))
    assert survey(broader).problems == [
        "test: depth has shape (2, 1, 2), declared is (1, 1, 2): sample 'b0' (and 1 more)"
    ]


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (
            changed(rgb=torch.zeros(3)),
            "test: rgb has shape (3,), declared is (2,): sample 'test0' (and 1 more)",
        ),
        (
            changed(depth=torch.tensor([torch.nan])),
            "test: depth holds values that are not finite: sample 'test0' (and 1 more)",
        ),
        (
            changed(sound=torch.zeros(1)),
            "test: 'sound' is none of the modalities rgb, depth: sample 'test0' (and 1 more)",
        ),
        (changed(rgb=None, depth=None), "test: a sample has no modality at all: sample 'test0' (and 1 more)"),
        (target(torch.tensor(255)), "test: label 255 is not a class, expected 0..1: sample 'test0' (and 1 more)"),
        (target(torch.tensor(-1)), "test: label -1 is not a class, expected 0..1: sample 'test0' (and 1 more)"),
        (
            target(torch.zeros(2, 2, dtype=torch.int64)),
            "test: the target is torch.int64 (2, 2), not int64 with 0 axes as in the first sample: sample 'test0' "
            "(and 1 more)",
        ),
        (lambda sample: {**sample, "id": "train1"}, "test: the id stands in train already: 'train1' (and 1 more)"),
    ],
)
def test_survey__finds_what_is_wrong_with_samples(edit: Callable[[Sample], Sample], problem: str) -> None:
    sound = splits()
    assert isinstance(sound.test, ArrayDataset)
    assert survey(replace(sound, test=Edited(sound.test, edit))).problems == [problem]


def test_survey__names_ten_samples_that_cannot_be_read_and_counts_the_others() -> None:
    found = survey(replace(splits(), test=Edited(part("test", [1] * 13), unreadable)))
    named = [f"test: a sample cannot be read: test{row}.png: not a readable image" for row in range(10)]
    assert found.problems == [*named, "test: a sample cannot be read: ... and 3 more"]
    assert (found.parts["test"].samples, found.parts["test"].readable) == (13, 0)


def test_survey__takes_over_what_a_part_counts_as_absent() -> None:
    sound = splits()
    sound.test.unreadable_cells = ["table.csv:4 column rgb: a.png: damaged"]
    found = survey(sound)
    assert found.problems == []
    assert found.parts["test"].unreadable == ("table.csv:4 column rgb: a.png: damaged",)
    assert found.parts["train"].unreadable == ()


def test_survey__finds_what_only_the_whole_shows() -> None:
    train = part("train", [0, 0], [[True, False], [True, False]])
    labels, groups = torch.tensor([0, 1]), torch.tensor([0])
    broken = replace(splits(), train=train, test=part("test", []), train_labels=labels, train_groups=groups)
    assert survey(broken).problems == [
        "train: train_labels differs from the sample's target: sample 'train1'",
        "the test part is empty",
        "train: no sample of class 'b'",
        "train: no sample has depth",
        "train_groups has shape (1,), training has 2 samples",
    ]


def test_survey__names_the_classes_that_training_lacks_in_one_line() -> None:
    train = part("train", [0, 0])
    many = replace(splits(), classes=tuple("abcdefghijklmn"), train=train, train_labels=train.target)
    assert survey(many).problems == [
        "train: no sample of class 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', ... and 3 more"
    ]


def regression(train: list[float]) -> DataSplits:
    test = [2.0]
    parts = [part(name, [0] * len(values)) for name, values in (("train", train), ("test", test))]
    for one, values in zip(parts, (train, test), strict=True):
        one.target = torch.tensor(values)
    return DataSplits(MODALITIES, "regression", ("age",), *parts)


def test_survey__of_regression_has_the_range_of_targets_and_no_classes() -> None:
    found = survey(regression([1.0, 5.0, 1.0, 5.0]))
    assert found.problems == []
    train = found.parts["train"]
    assert train.quantities is not None
    assert train.quantities.result() == [{"mean": 3.0, "deviation": 2.0, "lowest": 1.0, "highest": 5.0}]
    assert train.per_class.tolist() == []


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (target(torch.tensor(1)), "train: the target is torch.int64 (), not a float of shape () or (1,)"),
        (target(torch.zeros(2)), "train: the target is torch.float32 (2,), not a float of shape () or (1,)"),
        (target(torch.tensor(torch.inf)), "train: the target is not finite"),
    ],
)
def test_survey__of_regression_finds_targets_that_are_no_quantity(
    edit: Callable[[Sample], Sample], problem: str
) -> None:
    sound = regression([1.0, 5.0])
    found = survey(replace(sound, train=Edited(sound.train, edit)))
    assert any(line.startswith(problem) for line in found.problems)


def test_survey__of_regression_finds_a_constant_target() -> None:
    assert survey(regression([4.0, 4.0])).problems == [
        "train: age is 4 in every sample, there is nothing to learn",
    ]
