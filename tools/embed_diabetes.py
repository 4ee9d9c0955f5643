"""Write plugins/datasets/embedded/diabetes from the wheel of scikit-learn (``pip download --no-deps scikit-learn``).

Run: ``python tools/embed_diabetes.py scikit_learn-1.9.1-*.whl``; the wheel of any platform holds the same tables. The
measurements are in their own units, digit for digit as in the wheel, in one table with the target in the last column.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import zipfile
from pathlib import Path

import numpy as np

DATA = "sklearn/datasets/data"
COLUMNS = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
PATIENTS = 442
OUT = Path(__file__).parents[1] / "plugins" / "datasets" / "embedded" / "diabetes"


def main() -> None:
    """Read the wheel, check it and write ``patients.csv``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(arguments.wheel) as wheel:
        raw = gzip.decompress(wheel.read(f"{DATA}/diabetes_data_raw.csv.gz")).decode()
        target = np.loadtxt(io.BytesIO(gzip.decompress(wheel.read(f"{DATA}/diabetes_target.csv.gz"))))
    rows = [line.split() for line in raw.splitlines()]
    if [len(row) for row in rows] != [len(COLUMNS)] * PATIENTS or target.shape != (PATIENTS,):
        raise SystemExit(f"the tables are not {PATIENTS} rows of {len(COLUMNS)} measurements and a target")
    if not np.array_equal(target, target.astype(int)):
        raise SystemExit("the targets are not whole numbers")
    with (arguments.out / "patients.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["patient", *COLUMNS, "progression"])
        for number, (row, value) in enumerate(zip(rows, target.astype(int), strict=True)):
            writer.writerow([f"patient{number:03d}", *row, value])
    print(f"{len(rows)} patients")


if __name__ == "__main__":
    main()
