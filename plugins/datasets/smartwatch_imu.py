"""Accelerometer and gyroscope of a smartwatch during seven shoulder exercises, shipped with the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor

from robustmm import ArrayDataset, Component, DataError, DataSplits, Modality, Options, hookimpl

from ._files import Notes, as_float, embedded, read_arrays

NAME = "smartwatch_imu"
RATE_HZ = 50
SUBJECTS = range(1, 11)
SENSORS = ("acc", "gyro")
#: Pendulum, abduction, forward elevation, internal and external rotation, trapezius extension, upright row.
CLASSES = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")


class SmartwatchOptions(Options):
    """Options of the data set.

    Args:
        test_subject: The person left out of training, in the data's own numbering.
        window_seconds: Length of a sample.
        step_seconds: From the start of one window to the next.
    """

    test_subject: int = Field(1, ge=SUBJECTS[0], le=SUBJECTS[-1], description="person left out for testing, 1 to 10")
    window_seconds: float = Field(4.0, gt=0, description="length of a sample in seconds, at 50 Hz")
    step_seconds: float = Field(2.0, gt=0, description="from the start of one window to the next, in seconds")


@dataclass(frozen=True)
class Windows:
    """Samples of one or more subjects.

    Args:
        inputs: Sensor -> (N, 3, T).
        label: (N,) int64.
        subject: (N,) int64.
        ids: Subject, recording and window of each.
    """

    inputs: dict[str, Tensor]
    label: Tensor
    subject: Tensor
    ids: list[str]

    def dataset(self) -> ArrayDataset:
        """As samples."""
        return ArrayDataset(self.inputs, self.label, self.ids)


def cut_windows(signal: Tensor, window: int, step: int) -> Tensor:
    """Cut (time, D) into the windows that fit wholly: (N, D, window), each ``step`` after the one before; a view."""
    if len(signal) < window:
        return signal.new_zeros(0, signal.shape[1], window)
    return signal.unfold(0, window, step)


def read_subject(subject: int, window: int, step: int) -> Windows:
    """All windows of one subject; no window spans two recordings."""
    arrays = read_arrays(embedded(NAME) / f"subject{subject:02d}.npz")
    pieces: dict[str, list[Tensor]] = {sensor: [] for sensor in SENSORS}
    labels: list[int] = []
    ids: list[str] = []
    bounds = arrays["offsets"].tolist()
    for number, (start, end) in enumerate(pairwise(bounds)):
        for sensor in SENSORS:
            pieces[sensor].append(cut_windows(as_float(arrays[sensor][start:end]), window, step))
        count = len(pieces[SENSORS[0]][-1])
        labels += [int(arrays["label"][number])] * count
        ids += [
            f"subject{subject:02d}/recording{arrays['recording'][number]:03d}/{index:03d}" for index in range(count)
        ]
    inputs = {sensor: torch.cat(values) for sensor, values in pieces.items()}
    return Windows(inputs, torch.tensor(labels, dtype=torch.int64), torch.full((len(ids),), subject), ids)


def join(parts: list[Windows]) -> Windows:
    """The windows of several subjects, in their order."""
    return Windows(
        {sensor: torch.cat([part.inputs[sensor] for part in parts]) for sensor in SENSORS},
        torch.cat([part.label for part in parts]),
        torch.cat([part.subject for part in parts]),
        [name for part in parts for name in part.ids],
    )


def build_smartwatch_imu(test_subject: int, window_seconds: float, step_seconds: float) -> DataSplits:
    """Nine subjects for training and one for testing; groups are the subjects.

    Raises:
        DataError: no window fits, or the step is less than one sample.
    """
    window, step = round(window_seconds * RATE_HZ), round(step_seconds * RATE_HZ)
    if window < 1 or step < 1:
        raise DataError(
            f"data set '{NAME}': window_seconds and step_seconds must be at least {1 / RATE_HZ} (one sample)"
        )
    train = join([read_subject(subject, window, step) for subject in SUBJECTS if subject != test_subject])
    test = read_subject(test_subject, window, step)
    if not len(train.ids) or not len(test.ids):
        raise DataError(f"data set '{NAME}': no recording is as long as window_seconds {window_seconds}")
    notes: Notes = {
        "split": f"leave one subject out: subject {test_subject} is tested; validation is carved from train by subject",
        "windows": f"{window_seconds} s, step {step_seconds} s",
        "train": len(train.ids),
        "test": len(test.ids),
        "licence": "BSD-3-Clause",
        "citation": "D. M. Burns et al., Physiological Measurement 39(7), 2018, arXiv:1802.01489",
    }
    return DataSplits(
        tuple(Modality(sensor, "sequence", (3, window)) for sensor in SENSORS),
        "classification",
        CLASSES,
        train.dataset(),
        test.dataset(),
        train_labels=train.label,
        train_groups=train.subject,
        notes=notes,
    )


@hookimpl
def robustmm_register_datasets(register: Callable[[Component], None]) -> None:
    """Offer the smartwatch recordings."""
    register(
        Component(
            NAME,
            build_smartwatch_imu,
            SmartwatchOptions,
            "Accelerometer and gyroscope, seven exercises, leave one subject out; shipped, no download.",
            "D. M. Burns et al., arXiv:1802.01489; Python package seglearn (BSD-3-Clause)",
        )
    )
