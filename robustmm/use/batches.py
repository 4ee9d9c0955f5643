"""What may be given for prediction: one sample, a list of samples, or a batch with an axis more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustmm.errors import DataError, did_you_mean
from robustmm.types import Modality

#: Modality -> value, of one sample; an absent modality's key is missing, or its value is None.
Given = Mapping[str, Any]


def refuse_unknown(given: Given, modalities: Sequence[Modality]) -> None:
    """Raise DataError for a modality that the model does not have."""
    names = [modality.name for modality in modalities]
    for name in given:
        if name not in names:
            raise DataError(f"no modality '{name}'{did_you_mean(str(name), names)} (the model has {', '.join(names)})")


def holds_several(value: Any, modality: Modality) -> bool:
    """Whether a value is that of several samples: an array with an axis more, or a list of values."""
    if isinstance(value, list | tuple):
        flat = all(isinstance(one, int | float | list | tuple) for one in value)
        return np.ndim(value) == len(modality.shape) + 1 if flat else True
    return isinstance(value, Tensor | np.ndarray) and value.ndim == len(modality.shape) + 1


def is_batch(given: Given, modalities: Sequence[Modality]) -> bool:
    """Whether a mapping holds several samples.

    Raises:
        DataError: a modality holds several samples and another does not.
    """
    by_name = {modality.name: modality for modality in modalities}
    several = {name: holds_several(value, by_name[name]) for name, value in given.items() if value is not None}
    if len(set(several.values())) > 1:
        listed = ", ".join(f"{name} {'several' if many else 'one'}" for name, many in several.items())
        raise DataError(f"a batch holds as many samples of every modality; got {listed}")
    return any(several.values())


def samples_of(given: Given, presence: Any, modalities: Sequence[Modality]) -> Iterator[Given]:
    """The samples of a batch, one by one.

    Args:
        given: Modality -> values with one axis more than a sample's, or a list; None where no sample has it.
        presence: (B, M) bool, or 0 and 1, in the order of ``modalities``: what is shown of what is given; None shows
            all.
        modalities: Of the model.

    Raises:
        DataError: the lengths differ, or the mask has another shape, or shows what is not there.
    """
    columns = {name: value for name, value in given.items() if value is not None}
    lengths = {name: len(value) for name, value in columns.items()}
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"a batch holds as many samples of every modality; got {listed or 'nothing'}")
    count = next(iter(lengths.values()))
    mask = _mask(presence, count, modalities)
    for row in range(count):
        sample: Given = {name: value[row] for name, value in columns.items()}
        if mask is not None:
            sample = _shown(sample, mask[row].tolist(), modalities, row)
        yield sample


def _mask(presence: Any, count: int, modalities: Sequence[Modality]) -> Tensor | None:
    if presence is None:
        return None
    names = ", ".join(modality.name for modality in modalities)
    expected = f"expected bool of shape ({count}, {len(modalities)}): samples x modalities ({names})"
    try:
        mask = torch.as_tensor(presence)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"presence is no mask ({error}); {expected}") from None
    whole = not (mask.is_floating_point() or mask.is_complex())
    if tuple(mask.shape) != (count, len(modalities)) or not (whole and ((mask == 0) | (mask == 1)).all()):
        raise DataError(f"presence is {mask.dtype} of shape {tuple(mask.shape)}; {expected}, or whole numbers 0 and 1")
    return mask.bool()


def _shown(sample: Given, shown: list[bool], modalities: Sequence[Modality], row: int) -> Given:
    for modality, there in zip(modalities, shown, strict=True):
        if there and sample.get(modality.name) is None:
            raise DataError(f"sample {row}: presence shows {modality.name}, which is not given")
    return {modality.name: sample[modality.name] for modality, there in zip(modalities, shown, strict=True) if there}
