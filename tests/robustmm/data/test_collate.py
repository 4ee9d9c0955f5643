"""Samples to batches: what is absent, what is refused, and that slicing whole columns gives the same."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustmm import ArrayDataset, DataError, Modality, Scaling
from robustmm.data.collate import Collate

RGB = Modality("rgb", "image", (1, 2, 2), Scaling("none"))
IMU = Modality("imu", "vector", (3,), Scaling("none"))
TEXT = Modality("text", "vector", (2,), Scaling("none"))
ALL = (RGB, IMU, TEXT)


def sample(name: str, target: int = 0, **inputs: torch.Tensor | None) -> dict:
    return {"inputs": inputs, "target": torch.tensor(target), "id": name}


def collate(*samples: dict, modalities=(RGB, IMU)):
    return Collate(modalities)(list(enumerate(samples)))


def test_collate__missing_key_and_none_are_the_same():
    there, imu = torch.ones(1, 2, 2), torch.arange(3.0)
    batch = collate(sample("a", rgb=there, imu=imu), sample("b", rgb=there), sample("c", rgb=None, imu=imu))
    assert batch.observed.tolist() == [[True, True], [True, False], [False, True]]
    assert batch.inputs["imu"].tolist() == [[0, 1, 2], [0, 0, 0], [0, 1, 2]]
    assert not batch.inputs["rgb"][2].any()


def test_collate__keeps_ids_targets_and_positions():
    batch = Collate([IMU])([(7, sample("a", 2, imu=torch.ones(3))), (4, sample("b", 1, imu=torch.ones(3)))])
    assert batch.ids == ("a", "b")
    assert batch.target.tolist() == [2, 1]
    assert batch.index.tolist() == [7, 4]
    assert len(batch) == 2


def test_collate__gives_floats_whatever_the_samples_hold():
    whole = collate(sample("a", imu=torch.arange(3)), modalities=[IMU])
    holed = collate(sample("a", imu=torch.arange(3), rgb=None), sample("b", rgb=torch.ones(1, 2, 2)))
    assert whole.inputs["imu"].dtype == holed.inputs["imu"].dtype == torch.float32


def test_collate__ignores_keys_that_the_run_does_not_use():
    batch = collate(sample("a", imu=torch.ones(3), text=torch.ones(99)), modalities=[IMU])
    assert batch.modalities == ("imu",)


def test_collate__names_sample_modality_and_both_shapes():
    with pytest.raises(DataError) as caught:
        collate(sample("walk_17", imu=torch.ones(4)), modalities=[IMU])
    assert str(caught.value) == "sample 'walk_17': imu has shape (4,), expected (3,)"


def test_collate__refuses_sample_without_any_modality():
    with pytest.raises(DataError) as caught:
        collate(sample("a", imu=torch.ones(3)), sample("walk_17", rgb=None, text=torch.ones(2)))
    assert str(caught.value) == (
        "sample 'walk_17' has none of the modalities rgb, imu; leave it out of the data set, "
        "or choose data.modalities so that every sample has one"
    )


def test_collate__refuses_label_maps_of_different_sizes():
    samples = [sample("a", imu=torch.ones(3)), sample("b", imu=torch.ones(3))]
    samples[0]["target"], samples[1]["target"] = torch.zeros(4, 6).long(), torch.zeros(4, 8).long()
    with pytest.raises(DataError) as caught:
        collate(*samples, modalities=[IMU])
    assert str(caught.value) == (
        "targets of one batch must have one shape, got 'a' (4, 6), 'b' (4, 8); crop or resize the label maps, "
        "or set evaluation.batch_size: 1 where it is the evaluation that meets them"
    )


quickly = settings(max_examples=40, deadline=None)  # a busy machine must not fail a test
PATTERNS = st.lists(st.tuples(*[st.booleans()] * 3).filter(any), min_size=1, max_size=6)


@quickly
@given(PATTERNS, st.booleans())
def test_collate__any_pattern_of_holes_is_observed_zeroed_and_leaves_the_rest_untouched(pattern, by_none):
    generator = torch.Generator().manual_seed(0)
    full = [{m.name: torch.randn(m.shape, generator=generator) for m in ALL} for _ in pattern]
    samples = []
    for place, (values, shown) in enumerate(zip(full, pattern, strict=True)):
        kept = {m.name: values[m.name] for m, there in zip(ALL, shown, strict=True) if there}
        samples.append(sample(str(place), **(dict.fromkeys(values) | kept if by_none else kept)))
    batch = collate(*samples, modalities=ALL)
    assert batch.observed.tolist() == [list(shown) for shown in pattern]
    for row, values in enumerate(full):
        for column, modality in enumerate(ALL):
            expected = values[modality.name] if pattern[row][column] else torch.zeros(modality.shape)
            assert torch.equal(batch.inputs[modality.name][row], expected)


def array_dataset(pattern, *, poison: bool = False) -> ArrayDataset:
    """Random arrays; with ``poison`` the cells that are not observed hold NaN."""
    generator = torch.Generator().manual_seed(1)
    inputs = {m.name: torch.randn(len(pattern), *m.shape, generator=generator) for m in ALL}
    observed = torch.tensor(pattern)
    if poison:
        for column, value in enumerate(inputs.values()):
            value[~observed[:, column]] = torch.nan
    names = [f"s{place}" for place in range(len(pattern))]
    return ArrayDataset(inputs, torch.arange(len(pattern)), names, observed)


def assert_equal_batches(one, other):
    assert one.modalities == other.modalities
    for name in one.modalities:
        assert torch.equal(one.inputs[name], other.inputs[name])
    assert torch.equal(one.observed, other.observed)
    assert torch.equal(one.target, other.target)
    assert torch.equal(one.index, other.index)
    assert one.ids == other.ids


@quickly
@given(PATTERNS, st.randoms(use_true_random=False))
def test_array_dataset__take_equals_collating_one_by_one(pattern, random):
    data = array_dataset(pattern, poison=True)
    chosen = [random.randrange(len(data)) for _ in range(4)]
    whole = Collate(ALL)(data.take(chosen))
    assert_equal_batches(whole, Collate(ALL)([(index, data[index]) for index in chosen]))
    assert all(value.isfinite().all() for value in whole.inputs.values())


def test_collate__chooses_columns_of_a_ready_batch_in_the_order_of_the_run():
    data = array_dataset([(True, False, True), (True, True, False)])
    columns = (TEXT, RGB)
    whole = Collate(columns)(data.take([0, 1]))
    assert whole.modalities == ("text", "rgb")
    assert whole.observed.tolist() == [[True, True], [False, True]]
    assert_equal_batches(whole, Collate(columns)([(index, data[index]) for index in (0, 1)]))


def test_collate__column_choice_that_leaves_nothing_is_refused_either_way():
    data = array_dataset([(True, True, True), (True, False, True)])
    for samples in (data.take([0, 1]), [(index, data[index]) for index in (0, 1)]):
        with pytest.raises(DataError, match="sample 's1' has none of the modalities imu; leave it out of"):
            Collate([IMU])(samples)


def test_collate__ready_batch_of_another_shape_is_refused_in_the_same_words():
    data = array_dataset([(True, True, True)])
    wide = Modality("imu", "vector", (5,), Scaling("none"))
    for samples in (data.take([0]), [(0, data[0])]):
        with pytest.raises(DataError) as caught:
            Collate([wide])(samples)
        assert str(caught.value) == "sample 's0': imu has shape (3,), expected (5,)"


def test_collate__column_that_the_arrays_lack_is_absent_either_way():
    data = array_dataset([(True, True, True)])
    extra = Modality("audio", "vector", (2,), Scaling("none"))
    whole = Collate([IMU, extra])(data.take([0]))
    assert whole.observed.tolist() == [[True, False]]
    assert_equal_batches(whole, Collate([IMU, extra])([(0, data[0])]))


def test_array_dataset__refuses_unequal_lengths():
    with pytest.raises(DataError) as caught:
        ArrayDataset({"imu": torch.zeros(3, 2)}, torch.zeros(4), ["a", "b", "c"])
    assert str(caught.value) == "arrays of one data set must have one length, got {'imu': 3, 'target': 4, 'ids': 3}"


WIDE = Modality("wide", "image", (3, 4, 6), Scaling("none"))
DEEP = Modality("deep", "image", (1, 4, 6), Scaling("none"))


def test_collate__maps_of_another_size_set_the_size_of_absent_ones():
    samples = [sample("a", wide=torch.ones(3, 8, 12)), sample("b", wide=torch.ones(3, 8, 12))]
    batch = collate(*samples, modalities=[WIDE, DEEP])
    assert batch.inputs["wide"].shape == (2, 3, 8, 12)
    assert batch.inputs["deep"].shape == (2, 1, 8, 12)
    assert not batch.observed[:, 1].any()


def test_collate__maps_of_two_sizes_in_one_batch_are_refused():
    samples = [sample("a", wide=torch.ones(3, 8, 12)), sample("b", wide=torch.ones(3, 4, 6))]
    with pytest.raises(DataError) as caught:
        collate(*samples, modalities=[WIDE])
    assert str(caught.value) == (
        "wide must have one shape in a batch, got 'a' (3, 8, 12), 'b' (3, 4, 6); crop or resize it, "
        "or set evaluation.batch_size: 1 where it is the evaluation that meets them"
    )


def test_collate__maps_with_other_channels_are_refused():
    with pytest.raises(DataError, match=r"'a': wide has shape \(1, 4, 6\), expected \(3, 4, 6\)"):
        collate(sample("a", wide=torch.ones(1, 4, 6)), modalities=[WIDE])
