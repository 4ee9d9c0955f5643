"""What each modality predicts on its own, without a trace in the model."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from robustmm.methods.method import Method
from robustmm.models.modes import evaluating
from robustmm.types import Output


class UnimodalLogits(NamedTuple):
    """Logits of each modality alone, and where they come from; scores of different sources must not be compared.

    Args:
        logits: Modality -> (B, C) or (B, C, H, W). Rows in which the modality is absent mean nothing.
        source: ``split``: the modality's exact share of the fused logits; ``masked``: the readout with every other
            modality hidden.
    """

    logits: dict[str, Tensor]
    source: Literal["split", "masked"]


def split_logits(method: Method, output: Output) -> dict[str, Tensor] | None:
    """The exact share of each modality in the fused logits, or None where readout, fusion or head do not allow it.

    With concatenation or a sum in front of one linear layer, ``z_m = W_m f_m + b / k`` with k the number of present
    modalities, so that the shares of the present ones add up to the logits.

    Source:
        OGM-GE (CVPR 2022) for two modalities; k follows presence here.
    """
    if type(method).readout is not Method.readout:
        return None
    parts = method.trunk.summands(output.features, output.presence)
    if parts is None:
        return None
    share = 1 / output.presence.sum(dim=1).clamp_min(1)
    logits: dict[str, Tensor] = {}
    for name, fused in parts.items():
        part = method.head.linear_part(fused, share)
        if part is None:
            return None
        logits[name] = _resized(part, tuple(output.logits.shape[2:]))
    return logits


def _resized(logits: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear, as heads do: linear too, so that shares still add up."""
    if tuple(logits.shape[2:]) == size:
        return logits
    return interpolate(logits, size, mode="bilinear", align_corners=False)


def masked_logits(method: Method, output: Output) -> dict[str, Tensor] | None:
    """Logits with all but one modality hidden, from the features at hand; None where the trunk cannot re-fuse."""
    logits: dict[str, Tensor] = {}
    with evaluating(method):
        for column, name in enumerate(output.features):
            alone = torch.zeros_like(output.presence)
            alone[:, column] = output.presence[:, column]
            fused = method.trunk.refuse(output.features, alone)
            if fused is None:
                return None
            logits[name] = method.readout(output.features, fused, alone, tuple(output.logits.shape[2:])).logits
    return logits


def precision_of(method: Method, output: Output) -> AbstractContextManager[Any]:
    """The mixed precision in which ``output`` was computed; whoever asks later may stand outside of it."""
    weights = next(method.parameters()).dtype
    tensors = [output.logits, *output.fused, *(level for levels in output.features.values() for level in levels)]
    reduced = [tensor.dtype for tensor in tensors if tensor.dtype.itemsize < weights.itemsize]
    return torch.autocast(output.logits.device.type, dtype=reduced[0]) if reduced else nullcontext()


def unimodal_logits(method: Method, output: Output) -> UnimodalLogits | None:
    """The exact share of each modality where there is one, else the masked readout; None if neither works."""
    with precision_of(method, output):
        split = split_logits(method, output)
        if split is not None:
            return UnimodalLogits(split, "split")
        masked = masked_logits(method, output)
    return None if masked is None else UnimodalLogits(masked, "masked")
