"""The shipped smartwatch recordings: windows, subjects, and signal in both sensors."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from robustmm_plugins.datasets import smartwatch_imu as plugin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from robustmm import DataError


@pytest.fixture(scope="module")
def splits():
    return plugin.build_smartwatch_imu(**plugin.SmartwatchOptions().model_dump())


def test_smartwatch__windows_have_the_counts_of_the_published_protocol(splits):
    assert len(splits.train) + len(splits.test) == 2229
    assert splits.train[0]["inputs"]["acc"].shape == (3, 200)
    assert splits.train[0]["inputs"]["gyro"].shape == (3, 200)
    assert [modality.kind for modality in splits.modalities] == ["sequence", "sequence"]
    assert torch.bincount(splits.train.target).min() > 100


def test_smartwatch__test_subject_is_not_in_training(splits):
    assert {name.split("/")[0] for name in splits.test.ids} == {"subject01"}
    assert splits.train_groups.unique().tolist() == list(range(2, 11))
    other = plugin.build_smartwatch_imu(test_subject=10, window_seconds=4.0, step_seconds=2.0)
    assert {name.split("/")[0] for name in other.test.ids} == {"subject10"}
    assert other.train_groups.unique().tolist() == list(range(1, 10))


def test_smartwatch__ids_are_unique_and_groups_follow_them(splits):
    assert len({*splits.train.ids, *splits.test.ids}) == 2229
    assert [int(name[7:9]) for name in splits.train.ids] == splits.train_groups.tolist()


def test_smartwatch__first_values_are_those_of_the_original(splits):
    recordings = plugin.read_arrays(plugin.embedded("smartwatch_imu") / "subject07.npz")
    # Recording 0 of the original list belongs to subject 7; its first row in the package's file.
    assert recordings["recording"][0] == 0
    first = np.concatenate([recordings["acc"][0], recordings["gyro"][0]])
    np.testing.assert_allclose(first, [-1.083608, -0.018609, -0.02726, 0.41141, -1.603097, -2.488642], atol=1e-6)


def test_cut_windows__takes_whole_windows_alone():
    signal = torch.arange(14.0).view(7, 2)
    windows = plugin.cut_windows(signal, window=3, step=2)
    assert windows.shape == (3, 2, 3)
    assert windows[1, 0].tolist() == [4, 6, 8]
    assert windows[2, 1].tolist() == [9, 11, 13]
    assert plugin.cut_windows(signal, window=8, step=2).shape == (0, 2, 8)


@pytest.mark.parametrize(("sensor", "at_least"), [("acc", 0.65), ("gyro", 0.6)])
def test_smartwatch__each_sensor_tells_the_exercises_of_an_unseen_subject(splits, sensor, at_least):
    def statistics(part):
        signal = part.inputs[sensor]
        low, high = signal.amin(-1), signal.amax(-1)
        return torch.cat(
            [signal.mean(-1), signal.std(-1), low, high, signal.diff(dim=-1).abs().mean(-1)], dim=1
        ).numpy()

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    model.fit(statistics(splits.train), splits.train.target)
    # Mean over all ten subjects is 81 % and 75 %; chance is about 14 %.
    assert model.score(statistics(splits.test), splits.test.target) >= at_least


def test_smartwatch__refuses_what_cannot_be_cut():
    with pytest.raises(ValidationError, match="test_subject"):
        plugin.SmartwatchOptions(test_subject=0)
    with pytest.raises(DataError, match=r"at least 0\.02"):
        plugin.build_smartwatch_imu(test_subject=1, window_seconds=0.001, step_seconds=2.0)
    with pytest.raises(DataError, match=r"no recording is as long as window_seconds 9000"):
        plugin.build_smartwatch_imu(test_subject=1, window_seconds=9000.0, step_seconds=2.0)
