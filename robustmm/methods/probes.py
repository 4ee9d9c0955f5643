"""What each modality predicts on its own, without a trace in the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from robustmm.methods.method import Method
from robustmm.models.modes import evaluating
from robustmm.types import Batch, Output

#: Feature values that are fused at once: more masks in one call while they fit, for speed on small models.
FUSE_AT_ONCE = 1 << 22


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


def alone_masks(presence: Tensor) -> list[Tensor]:
    """For each modality the mask (B, M) in which no other is left of ``presence``."""
    columns = torch.eye(presence.shape[1], dtype=torch.bool, device=presence.device)
    return [presence & column for column in columns]


def subset_logits(
    method: Method, output: Output, masks: Sequence[Tensor], inputs: Mapping[str, Tensor] | None = None
) -> list[Tensor] | None:
    """Logits for other masks than the output's, in evaluation mode, so that no statistic changes.

    Features at hand are fused again where the trunk can, else everything is encoded again; None where that is needed
    and there are no inputs. With a gradient where the caller allows one.

    Args:
        method: In whatever mode.
        output: Of its forward pass.
        masks: (B, M) bool each, on the output's device.
        inputs: What the output was made of.
    """
    size = tuple(output.logits.shape[2:]) if method.task.dense else ()
    logits = []
    with evaluating(method), precision_of(method, output):
        for mask in masks:
            fused = method.trunk.refuse(output.features, mask)
            if fused is not None:
                logits.append(method.readout(output.features, fused, mask, size).logits)
            elif inputs is not None:
                logits.append(method(inputs, mask, size=size).logits)
            else:
                return None
    return logits


def logits_by_chunk(method: Method, batch: Batch, output: Output, shown: Tensor) -> Iterator[Tensor]:
    """Yield (k, B, C, ...) logits for consecutive masks of ``shown`` (K, B, M), several in one call while they fit.

    Args:
        method: In evaluation mode.
        batch: On the output's device.
        output: Of a forward pass over the batch.
        shown: (K, B, M) bool, on any device.
    """
    size = tuple(output.logits.shape[2:])
    values = sum(level.numel() for levels in output.features.values() for level in levels)
    chunk = max(1, FUSE_AT_ONCE // max(values, 1))
    for part in shown.split(chunk):  # type: ignore[no-untyped-call]  # torch leaves Tensor.split untyped
        presence = part.flatten(0, 1).to(output.logits.device)  # (k B, M)
        features = {name: [_repeat(level, len(part)) for level in levels] for name, levels in output.features.items()}
        fused = method.trunk.refuse(features, presence)
        if fused is None:
            yield torch.stack([method(batch.inputs, one, size=size).logits for one in part])
        else:
            logits = method.readout(features, fused, presence, size).logits
            yield logits.reshape(len(part), len(batch), *logits.shape[1:])


def _repeat(feature: Tensor, times: int) -> Tensor:
    """(B, ...) -> (times B, ...), without a copy where once is enough."""
    return feature if times == 1 else feature.expand(times, *feature.shape).flatten(0, 1)


def masked_logits(
    method: Method, output: Output, inputs: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor] | None:
    """Logits with all but one modality hidden, by modality; see `subset_logits`."""
    logits = subset_logits(method, output, alone_masks(output.presence), inputs)
    return None if logits is None else dict(zip(output.features, logits, strict=True))


def precision_of(method: Method, output: Output) -> AbstractContextManager[Any]:
    """The mixed precision in which ``output`` was computed; whoever asks later may stand outside of it."""
    weights = next(method.parameters()).dtype
    tensors = [output.logits, *output.fused, *(level for levels in output.features.values() for level in levels)]
    reduced = [tensor.dtype for tensor in tensors if tensor.dtype.itemsize < weights.itemsize]
    return torch.autocast(output.logits.device.type, dtype=reduced[0]) if reduced else nullcontext()


def unimodal_logits(
    method: Method, output: Output, inputs: Mapping[str, Tensor] | None = None
) -> UnimodalLogits | None:
    """The exact share of each modality where there is one, else the masked readout; None if neither works.

    Args:
        method: In whatever mode.
        output: Of its forward pass.
        inputs: What the output was made of, for trunks that cannot fuse kept features anew.
    """
    with precision_of(method, output):
        split = split_logits(method, output)
    if split is not None:
        return UnimodalLogits(split, "split")
    masked = masked_logits(method, output, inputs)
    return None if masked is None else UnimodalLogits(masked, "masked")
