"""Parts of a run: what is carved from training, and what is refused."""

import pytest
import torch

from robustmm import ArrayDataset, DataError, DataSplits, Modality
from robustmm.data.parts import Part, carve, choose_modalities, split_parts

MODALITIES = (Modality("rgb", "vector", (2,)), Modality("depth", "vector", (2,)))


def arrays(count: int, **options) -> ArrayDataset:
    values = torch.arange(float(2 * count)).view(count, 2)
    inputs = {"rgb": values, "depth": -values}
    return ArrayDataset(inputs, torch.arange(count) % 2, [f"s{n}" for n in range(count)], **options)


def splits(**changes) -> DataSplits:
    parts = {"train": arrays(10), "test": arrays(3)} | changes
    return DataSplits(MODALITIES, "classification", ("no", "yes"), **parts)


def test_carve__takes_the_share_of_each_class():
    labels = torch.tensor([0] * 40 + [1] * 20 + [2] * 10)
    held_out = carve(70, labels, None, fraction=0.2, seed=0)
    assert torch.bincount(labels[held_out]).tolist() == [8, 4, 2]
    assert held_out == sorted(set(held_out))


def test_carve__takes_one_of_a_rare_class_but_never_its_only_sample():
    labels = torch.tensor([0] * 10 + [1, 1] + [2])
    held_out = carve(13, labels, None, fraction=0.1, seed=3)
    assert torch.bincount(labels[held_out], minlength=3).tolist() == [1, 1, 0]


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_carve__leaves_each_class_something_on_both_sides(fraction):
    labels = torch.tensor([0, 1] * 8)
    held_out = carve(16, labels, None, fraction=fraction, seed=0)
    assert all(1 <= count <= 7 for count in torch.bincount(labels[held_out]).tolist())


def test_carve__without_labels_takes_the_share_of_all():
    assert len(carve(50, None, None, fraction=0.1, seed=0)) == 5


@pytest.mark.parametrize("seed", range(5))
def test_carve__keeps_groups_whole(seed):
    groups = torch.tensor([n // 3 for n in range(30)])
    held_out = carve(30, torch.arange(30) % 2, groups, fraction=0.3, seed=seed)
    chosen = set(groups[held_out].tolist())
    assert held_out == [n for n in range(30) if groups[n].item() in chosen]
    assert len(chosen) == 3


@pytest.mark.parametrize(("fraction", "count"), [(0.001, 1), (0.999, 2)])
def test_carve__takes_one_group_at_least_and_never_all(fraction, count):
    groups = torch.tensor([4, 4, 7, 7, 9, 9])
    held_out = carve(6, None, groups, fraction=fraction, seed=0)
    assert len(set(groups[held_out].tolist())) == count


def test_carve__depends_on_the_seed_alone():
    labels = torch.arange(60) % 3
    first = carve(60, labels, None, fraction=0.2, seed=5)
    torch.manual_seed(99)
    assert carve(60, labels, None, fraction=0.2, seed=5) == first
    assert carve(60, labels, None, fraction=0.2, seed=6) != first


def test_carve__refuses_a_single_group():
    with pytest.raises(DataError, match="validation cannot be carved by groups: the training part has one group only"):
        carve(4, None, torch.zeros(4, dtype=torch.int64), fraction=0.5, seed=0)


def test_split_parts__carved_validation_and_training_are_disjoint_and_complete():
    parts = split_parts(splits(train_labels=torch.arange(10) % 2), seed=0, fraction=0.2, carve_seed=1)
    train, validation = set(parts.train.indices), set(parts.validation.indices)
    assert not train & validation
    assert train | validation == set(range(10))
    assert parts.facts == {
        "validation": "carved from training by classes, fraction 0.2, seed 1",
        "train_samples": 8,
        "validation_samples": 2,
        "test_samples": 3,
    }


def test_split_parts__carving_ignores_the_seed_of_the_run():
    one, other = (split_parts(splits(), seed=seed, fraction=0.3, carve_seed=1) for seed in (0, 7))
    assert one.validation.indices == other.validation.indices


def test_split_parts__says_what_it_carved_by():
    groups = torch.arange(10) // 2
    by_group = split_parts(splits(train_groups=groups), seed=0, fraction=0.2, carve_seed=1)
    plain = split_parts(splits(), seed=0, fraction=0.2, carve_seed=1)
    assert by_group.facts["validation"] == "carved from training by groups, fraction 0.2, seed 1"
    assert plain.facts["validation"] == "carved from training by samples, fraction 0.2, seed 1"


def test_parts__people_read_each_count_once():
    notes = {"train": 10, "test": 3, "val": 7, "windows": 10}
    carved = split_parts(splits(notes=notes), seed=0, fraction=0.2, carve_seed=1)
    assert carved.facts_for_people() == {
        "val": 7,  # of nothing that the run counts
        "windows": 10,
        "validation": "carved from training by samples, fraction 0.2, seed 1; training had 10 samples before",
        "train_samples": 8,
        "validation_samples": 2,
        "test_samples": 3,
    }
    own = split_parts(splits(notes={"train": 10, "val": 4}, validation=arrays(4)), seed=0, fraction=0.2, carve_seed=1)
    assert own.facts_for_people().keys() == {"validation", "train_samples", "validation_samples", "test_samples"}
    assert own.facts_for_people()["validation"] == "the data set's own"


def test_split_parts__uses_the_validation_part_that_is_there():
    parts = split_parts(splits(validation=arrays(4)), seed=0, fraction=0.2, carve_seed=1)
    assert (len(parts.train), len(parts.validation)) == (10, 4)
    assert parts.facts["validation"] == "the data set's own"


def test_split_parts__refuses_an_empty_part():
    with pytest.raises(DataError) as caught:
        split_parts(splits(train=arrays(1)), seed=0, fraction=0.2, carve_seed=1)
    assert str(caught.value) == (
        "the validation part is empty (carved from training by samples, fraction 0.2, seed 1); whatever "
        "data.validation.fraction is, every class keeps a sample for training and none has a second: add training "
        "samples, or mark samples (in a manifest: rows) as validation"
    )
    with pytest.raises(DataError) as caught:
        split_parts(splits(validation=arrays(0)), seed=0, fraction=0.2, carve_seed=1)
    assert str(caught.value) == "the validation part is empty (the data set's own)"


def test_choose_modalities__orders_and_suggests():
    assert choose_modalities(MODALITIES, ["depth", "rgb"]) == MODALITIES[::-1]
    assert choose_modalities(MODALITIES, None) == MODALITIES
    with pytest.raises(DataError) as caught:
        choose_modalities(MODALITIES, ["rbg"])
    assert str(caught.value) == "data.modalities: no modality 'rbg' - did you mean 'rgb'? (the data set has rgb, depth)"


@pytest.mark.parametrize("names", [["rgb", "rgb"], []])
def test_choose_modalities__wants_each_name_once(names):
    with pytest.raises(DataError, match=r"data\.modalities: name each modality once, got"):
        choose_modalities(MODALITIES, names)


def test_part__augments_in_training_alone():
    def shout(sample, generator):
        return sample | {"inputs": {"rgb": torch.rand(2, generator=generator)}}

    data = arrays(4, augment=shout)
    training = Part(data, [2, 3], augment_seed=0)
    assert not torch.equal(training[0, 0][1]["inputs"]["rgb"], data[2]["inputs"]["rgb"])
    assert torch.equal(training.without_augmentation()[0, 0][1]["inputs"]["rgb"], data[2]["inputs"]["rgb"])
    assert torch.equal(Part(data, [2, 3])[1, 0][1]["inputs"]["rgb"], data[3]["inputs"]["rgb"])


def test_part__without_augmentation_keeps_the_sizes_of_training():
    class Growing:
        """Labels of another size each, brought to one by ``augment`` and ``at_training_size``."""

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return {"inputs": {"rgb": torch.zeros(2)}, "target": torch.zeros(index + 1, 3), "id": str(index)}

        def at_training_size(self, sample):
            return sample | {"target": sample["target"][:1]}

        def augment(self, sample, generator):
            return self.at_training_size(sample) | {"inputs": {"rgb": torch.ones(2)}}

    plain = Part(Growing(), [0, 1], augment_seed=0).without_augmentation()
    assert plain[1, 0][1]["target"].shape == (1, 3)
    assert not plain[1, 0][1]["inputs"]["rgb"].any()
    assert Part(Growing(), [0, 1])[1, 0][1]["target"].shape == (2, 3)  # validation: labels as they are


def test_part__positions_are_those_of_the_part():
    part = Part(arrays(6), [5, 1, 3])
    batch = part.__getitems__([(2, 0), (0, 0)])
    assert batch.index.tolist() == [2, 0]
    assert batch.ids == ("s3", "s5")


def test_split_parts__reads_only_the_modalities_of_the_run():
    class Choosing(ArrayDataset):
        def only(self, names):
            asked.append(list(names))
            return ArrayDataset({name: self.inputs[name] for name in names}, self.target, self.ids)

    asked: list[list[str]] = []
    values = {name: torch.zeros(8, 2) for name in ("rgb", "depth")}
    data = Choosing(values, torch.arange(8) % 2, [f"s{row}" for row in range(8)])
    parts = split_parts(splits(train=data, test=data), seed=0, fraction=0.25, carve_seed=0, modalities=["depth"])
    assert asked == [["depth"], ["depth"]]
    assert list(parts.train[0, 0][1]["inputs"]) == ["depth"]


class ReadsLabelsAlone:
    """Samples that must not be read where labels are asked for."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        raise AssertionError("the inputs are not needed")

    def target(self, index):
        return torch.tensor(10 + index)


def test_part__targets_are_read_alone_where_the_data_set_can():
    assert [int(target) for target in Part(ReadsLabelsAlone(), [2, 0]).targets()] == [12, 10]


def test_part__targets_of_arrays_are_those_of_the_samples():
    assert [int(target) for target in Part(arrays(4), [3, 0]).targets()] == [1, 0]
