"""Write plugins/datasets/embedded/smartwatch_imu from the wheel of seglearn (``pip download --no-deps seglearn``).

Run: ``python tools/embed_smartwatch_imu.py seglearn-1.2.5-py3-none-any.whl``. The wheel holds a pickled dictionary, so
run this only on a wheel that you trust; what is written holds plain arrays alone. One file per subject keeps each file
small. The values lie on a grid of a millionth and need more than 16 bits, so they are stored as float32.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np

OUT = Path(__file__).parents[1] / "plugins" / "datasets" / "embedded" / "smartwatch_imu"
CLASSES = ["PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"]


def main() -> None:
    """Read the wheel, check it and write one ``.npz`` per subject."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(arguments.wheel) as wheel:
        raw = wheel.read("seglearn/data/watch_dataset.npy")
    watch = np.load(io.BytesIO(raw), allow_pickle=True).item()
    if list(watch["y_labels"]) != CLASSES or list(watch["X_labels"]) != ["ax", "ay", "az", "wx", "wy", "wz"]:
        raise SystemExit(f"unexpected labels {watch['y_labels']} {watch['X_labels']}")
    subjects = np.asarray(watch["subject"])
    for subject in sorted(set(subjects.tolist())):
        recordings = np.flatnonzero(subjects == subject)
        signal = np.concatenate([watch["X"][number] for number in recordings])
        stored = signal.astype(np.float32)
        if np.abs(stored - signal).max() > 1e-6:
            raise SystemExit(f"subject {subject}: float32 does not hold the values")
        lengths = [len(watch["X"][number]) for number in recordings]
        np.savez_compressed(
            arguments.out / f"subject{int(subject):02d}.npz",
            acc=stored[:, :3],
            gyro=stored[:, 3:],
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            recording=recordings.astype(np.int64),
            label=np.asarray(watch["y"])[recordings].astype(np.int64),
            side=np.asarray(watch["side"])[recordings].astype(np.int64),
        )
        print(f"subject {subject}: {len(recordings)} recordings, {len(stored)} samples")


if __name__ == "__main__":
    main()
