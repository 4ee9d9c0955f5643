"""Predictions in files: a table, the same as JSON lines, and maps of dense prediction as pictures."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image

from robustmm.errors import RobustmmError
from robustmm.masks import combination_name
from robustmm.report.palette import Bytes, class_colours
from robustmm.report.pictures import resize, show_classes, show_input
from robustmm.signature import Signature
from robustmm.types import VOID, Modality
from robustmm.use.batches import Given
from robustmm.use.prediction import Prediction
from robustmm.use.values import read_value

TABLE, LINES, MAPS, OVERLAYS = "predictions.csv", "predictions.jsonl", "maps", "overlays"
#: How much of the class's colour an overlay has.
OPACITY = 0.5
#: Shares of red, green and blue in brightness. Source: ITU-R BT.601.
GREY = np.array([0.299, 0.587, 0.114], np.float32)


def row_of(prediction: Prediction, top: int) -> dict[str, Any]:
    """A prediction's row: name, modalities, what is predicted, and how unsure that is.

    Args:
        prediction: See `Prediction`.
        top: So many classes are named; of dense prediction those with most pixels, with their shares.
    """
    row: dict[str, Any] = {"id": prediction.id, "modalities": combination_name(prediction.modalities)}
    if prediction.values is not None:
        row |= {name: rounded(value) for name, value in prediction.values.items()}
        row |= {f"{name}_scale": rounded(value) for name, value in (prediction.scales or {}).items()}
    else:
        word = "probability" if prediction.map is None else "share"
        best = prediction.top(top) if prediction.map is None else shares(prediction)[:top]
        best += [("", math.nan)] * (min(top, len(prediction.classes)) - len(best))
        for place, (name, value) in enumerate(best):
            suffix = "" if place == 0 else f"_{place + 1}"
            row |= {f"label{suffix}": name, f"{word}{suffix}": rounded(value)}
    if prediction.uncertainty is not None:
        row["uncertainty"] = rounded(float(prediction.uncertainty.mean()))
    return row


def rounded(value: float) -> float | None:
    """Six significant digits, as more are noise of float32; None for what is not finite, which JSON does not have."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def shares(prediction: Prediction) -> list[tuple[str, float]]:
    """The classes of a map with their shares of its pixels, the largest first; classes that it lacks are left out."""
    assert prediction.map is not None  # callers have seen to it
    counts = prediction.map.flatten().bincount(minlength=VOID + 1)
    known = [(name, int(counts[place]) / prediction.map.numel()) for place, name in enumerate(prediction.classes)]
    return sorted([pair for pair in known if pair[1] > 0], key=lambda pair: -pair[1])


class PredictionWriter:
    """Writes predictions one by one into a folder; used as a context.

    Args:
        folder: Made where there is none.
        signature: Of the model.
        top: See `row_of`.
        overwrite: Replace earlier predictions in the folder.

    Raises:
        RobustmmError: the folder is not empty.
    """

    def __init__(self, folder: Path, signature: Signature, *, top: int = 1, overwrite: bool = False) -> None:
        self.folder = folder
        self.signature = signature
        self.top = top
        self.colours = class_colours(signature.classes, signature.colours)
        self._names: set[str] = set()
        self._writer: csv.DictWriter[str] | None = None
        self._open = ExitStack()
        _make_room(folder, overwrite=overwrite)

    def __enter__(self) -> Self:
        self._table = self._open.enter_context((self.folder / TABLE).open("w", newline="", encoding="utf-8"))
        self._lines = self._open.enter_context((self.folder / LINES).open("w", encoding="utf-8"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def write(self, prediction: Prediction, given: Given) -> None:
        """Add a prediction; ``given`` is what it was made of, for the overlay."""
        row = row_of(prediction, self.top)
        if prediction.map is not None:
            row |= self._write_maps(prediction, given)
        if self._writer is None:
            self._writer = csv.DictWriter(self._table, fieldnames=list(row))
            self._writer.writeheader()
        self._writer.writerow(row)
        self._lines.write(json.dumps({**row, **_details(prediction)}) + "\n")

    def _write_maps(self, prediction: Prediction, given: Given) -> dict[str, str]:
        assert prediction.map is not None  # `write` has seen to it
        name = self._unused(re.sub(r"[^\w.-]+", "_", prediction.id) or "_")
        wide = len(prediction.classes) > VOID
        labels = prediction.map.numpy().astype(np.uint16 if wide else np.uint8)
        paths = {"map": f"{MAPS}/{name}.png", "overlay": f"{OVERLAYS}/{name}.png"}
        for path, picture in zip(paths.values(), (labels, self.overlay(prediction, given)), strict=True):
            (self.folder / path).parent.mkdir(exist_ok=True)
            Image.fromarray(picture).save(self.folder / path)
        return paths

    def _unused(self, name: str) -> str:
        """The name of a file, other than those before."""
        candidates: Iterator[str] = (
            name if place == 0 else f"{name}-{place + 1}" for place in range(len(self._names) + 1)
        )
        chosen = next(one for one in candidates if one not in self._names)
        self._names.add(chosen)
        return chosen

    def overlay(self, prediction: Prediction, given: Given) -> Bytes:
        """The classes' colours over the picture that the map was made of, (H, W, 3)."""
        return overlay(prediction, given, self.signature, self.colours)


def overlay(prediction: Prediction, given: Given, signature: Signature, colours: Bytes) -> Bytes:
    """The classes' colours over a colour picture that was shown to the model, else over its first map, (H, W, 3).

    The picture is grey there, so that its colours are not taken for those of classes.
    """
    assert prediction.map is not None  # of dense prediction alone
    base = picture_below(prediction, signature)
    value = read_value(given[base.name], base, None)
    size = (prediction.map.shape[0], prediction.map.shape[1])
    below = resize(show_input(base, value.tensor).pixels, size) @ GREY  # (H, W)
    above = show_classes(prediction.map.numpy(), colours).astype(np.float32)
    mixed: Bytes = ((1 - OPACITY) * below[..., None] + OPACITY * above).round().astype(np.uint8)
    return mixed


def picture_below(prediction: Prediction, signature: Signature) -> Modality:
    """What a map is laid over: a colour picture that was shown to the model, else its first map."""
    shown = [one for one in signature.modalities if one.name in prediction.modalities]
    return next((one for one in shown if one.shape[0] == 3), shown[0])


def _details(prediction: Prediction) -> Mapping[str, Any]:
    """What JSON lines hold beside the row: the modalities as a list, and every class's probability or share."""
    details: dict[str, Any] = {"modalities": list(prediction.modalities)}
    if prediction.map is not None:
        details["shares"] = {name: rounded(value) for name, value in shares(prediction)}
    elif prediction.probabilities is not None:
        values = zip(prediction.classes, prediction.probabilities.tolist(), strict=True)
        details["probabilities"] = {name: rounded(value) for name, value in values}
    return details


def _make_room(folder: Path, *, overwrite: bool) -> None:
    if folder.is_file():
        raise RobustmmError(f"{folder} is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise RobustmmError(f"{folder} is not empty; add --overwrite to replace earlier predictions in it")
        if not (folder / TABLE).is_file():
            raise RobustmmError(f"{folder} holds no earlier predictions (no {TABLE}); not overwriting it")
        for name in (MAPS, OVERLAYS):
            shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
