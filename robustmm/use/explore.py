"""One sample under every combination of its modalities, as JSON for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robustmm.masks import all_combinations, combination_name
from robustmm.predictor import Predictor
from robustmm.report.palette import Bytes, class_colours
from robustmm.report.pictures import fitting_size, picture_score, resize, resize_labels, show_classes, show_input
from robustmm.types import Combination, Modality
from robustmm.use.batches import Given
from robustmm.use.prediction import Prediction
from robustmm.use.values import read_value
from robustmm.use.writing import picture_below, rounded, shares

#: (height, width) of pictures at most.
BOX = (420, 560)
#: Numbers of a vector or steps of a sequence that are drawn at most; more are averaged.
DRAWN = 160
#: Classes with a bar.
BARS = 8
#: With more modalities than this not every combination is shown, but single ones, all but one, and all.
MOST_FOR_ALL = 6


def explore(predictor: Predictor, given: Given, *, id: str, target: Tensor | None = None) -> dict[str, Any]:
    """What a page shows of a sample.

    Args:
        predictor: Of the run.
        given: Modality -> value; see `robustmm.Predictor`.
        id: The sample's name.
        target: Its label, where that is known.

    Returns:
        ``inputs`` with pictures or numbers, ``combinations`` with what is predicted from them, small ones first, and
        ``target``.

    Raises:
        DataError: a value does not fit, or there is none.
    """
    names = [one.name for one in predictor.modalities if given.get(one.name) is not None]
    predictions = predictor.every_combination(given, chosen_combinations(names) if names else None, id=id)
    colours = class_colours(predictor.classes, predictor.signature.colours)
    return {
        "id": id,
        "inputs": [_input(one, given) for one in predictor.modalities],
        "combinations": [_combination(predictor, one, target, colours) for one in predictions],
        "target": _target(predictor, target, colours),
    }


def chosen_combinations(names: Sequence[str]) -> list[Combination]:
    """Every combination of a few modalities; of many single ones, all but one, and all."""
    everything = all_combinations(names)
    if len(names) <= MOST_FOR_ALL:
        return everything
    return [one for one in everything if len(one) in (1, len(names) - 1, len(names))]


def _input(modality: Modality, given: Given) -> dict[str, Any]:
    size = " x ".join(map(str, modality.shape))
    about = {"name": modality.name, "kind": modality.kind, "shape": size, "unit": modality.unit}
    if given.get(modality.name) is None:
        return {**about, "given": False}
    tensor = read_value(given[modality.name], modality, None).tensor
    if len(modality.shape) == 3:
        shown = show_input(modality, tensor)
        return {**about, "given": True, "picture": data_uri(fitted(shown.pixels)), "note": shown.note}
    return {**about, "given": True, "lines": [drawn(line) for line in tensor.reshape(-1, tensor.shape[-1])]}


def drawn(values: Tensor) -> list[float | None]:
    """At most `DRAWN` numbers, averages of neighbours where there are more."""
    pooled = torch.nn.functional.adaptive_avg_pool1d(values.float()[None], min(DRAWN, len(values)))[0]
    return [rounded(value) for value in pooled.tolist()]


def fitted(pixels: Bytes) -> Bytes:
    """A picture no larger than `BOX`."""
    size = (pixels.shape[0], pixels.shape[1])
    return resize(pixels, fitting_size(size, BOX)) if size[0] > BOX[0] or size[1] > BOX[1] else pixels


def data_uri(pixels: Bytes) -> str:
    """A PNG in a link."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _combination(predictor: Predictor, prediction: Prediction, target: Tensor | None, colours: Bytes) -> dict[str, Any]:
    doubt = prediction.uncertainty
    about: dict[str, Any] = {
        "name": combination_name(prediction.modalities),
        "modalities": list(prediction.modalities),
        "uncertainty": None if doubt is None else rounded(float(doubt.mean())),
    }
    if prediction.map is not None:
        return {
            **about,
            "picture": data_uri(fitted(show_classes(prediction.map.numpy(), colours))),
            "below": picture_below(prediction, predictor.signature).name,
            "bars": [[name, rounded(value), _colour(name, predictor, colours)] for name, value in shares(prediction)],
            "score": _map_score(prediction, target),
        }
    if prediction.values is not None:
        scales = prediction.scales or {}
        rows = [[name, rounded(value), scales.get(name)] for name, value in prediction.values.items()]
        return {**about, "values": rows}
    right = None if target is None else prediction.label == predictor.classes[int(target)]
    return {
        **about,
        "label": prediction.label,
        "right": right,
        "bars": [[name, rounded(value), None] for name, value in prediction.top(BARS)],
    }


def _colour(name: str, predictor: Predictor, colours: Bytes) -> str:
    red, green, blue = colours[predictor.classes.index(name)].tolist()
    return f"rgb({red} {green} {blue})"


def _map_score(prediction: Prediction, target: Tensor | None) -> float | None:
    """Mean IoU over the classes of the label map, brought to the prediction's size; None without a label."""
    if target is None or prediction.map is None:
        return None
    size = (prediction.map.shape[0], prediction.map.shape[1])
    wanted = torch.from_numpy(np.ascontiguousarray(resize_labels(target, size)))
    score = picture_score(prediction.map, wanted, len(prediction.classes))
    return None if score is None else rounded(score)


def _target(predictor: Predictor, target: Tensor | None, colours: Bytes) -> dict[str, Any] | None:
    if target is None:
        return None
    if predictor.method.task.dense:
        return {"picture": data_uri(fitted(show_classes(target.numpy(), colours)))}
    if predictor.method.task.continuous:
        values = target.reshape(-1).tolist()
        return {"values": [[name, rounded(value)] for name, value in zip(predictor.classes, values, strict=True)]}
    return {"label": predictor.classes[int(target)]}
