"""Names that a data set must not give its modalities."""

import pytest

from robustmm import DataError, Modality
from robustmm.data.parts import choose_modalities


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
