"""What a data set must not say of itself: names of modalities that mean something else, labels that do not fit."""

import pytest
import torch

from robustmm import ArrayDataset, DataError, DataSplits, Modality
from robustmm.data.parts import choose_modalities, split_parts


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("rgb+depth", "'+' joins modalities"),
        ("left.eye", "letters, digits and underscores"),
        ("left/eye", "letters, digits and underscores"),
        ("", "letters, digits and underscores"),
        ("keys", "ModuleDict keeps for itself"),
        ("pop", "ModuleDict keeps for itself"),
        ("training", "ModuleDict keeps for itself"),
        ("mean", "is the name of a summary"),
    ],
)
def test_choose_modalities__refuses_a_name_that_means_something_else(name, reason):
    known = (Modality("rgb", "vector", (2,)), Modality(name, "vector", (2,)))
    with pytest.raises(DataError) as caught:
        choose_modalities(known, None)
    assert str(caught.value).startswith(f"the data set calls a modality '{name}'")
    assert reason in str(caught.value)


def test_choose_modalities__refuses_a_data_set_with_one_name_for_two():
    known = (Modality("rgb", "vector", (2,)), Modality("rgb", "vector", (3,)))
    with pytest.raises(DataError, match=r"must name each modality once, it has \['rgb', 'rgb'\]"):
        choose_modalities(known, None)


def splits(labels: torch.Tensor, groups: torch.Tensor | None = None) -> DataSplits:
    modality = Modality("rgb", "vector", (2,))
    data = ArrayDataset({"rgb": torch.zeros(4, 2)}, torch.zeros(4, dtype=torch.int64), list("abcd"))
    return DataSplits(
        (modality,), "classification", ("no", "yes"), data, data, train_labels=labels, train_groups=groups
    )


@pytest.mark.parametrize(
    ("labels", "groups", "text"),
    [
        ([0, 1, 2, 0], None, "train_labels holds 2; labels are 0 to 1, one per class"),
        ([0, -1, 1, 0], None, "train_labels holds -1; labels are 0 to 1, one per class"),
        ([0, 1, 0], None, "train_labels has 3 values for 4 training samples"),
        ([0, 1, 0, 1], [0, 1], "train_groups has 2 values for 4 training samples"),
    ],
)
def test_split_parts__refuses_labels_that_do_not_fit(labels, groups, text):
    given = splits(torch.tensor(labels), None if groups is None else torch.tensor(groups))
    with pytest.raises(DataError) as caught:
        split_parts(given, seed=0, fraction=0.5, carve_seed=0)
    assert str(caught.value) == text
