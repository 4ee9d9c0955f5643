"""Scores of a model that adapts at test time: one stream of batches per combination, each from the trained weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from robustmm import distributed
from robustmm.adaptation.adapter import Adapter
from robustmm.adaptation.stream import AdaptedModel, Autocast, Encoded, Stream, adapted_parameters, only_adapting
from robustmm.engine.evaluate import Evaluation, ExtraMetrics, Tally, over_processes
from robustmm.masks import all_combinations, presence_of
from robustmm.methods.method import Method
from robustmm.types import Batch, Combination


def evaluate_adapted(
    method: Method,
    batches: Iterable[Batch],
    device: torch.device,
    *,
    make_adapter: Callable[[], Adapter],
    combinations: Sequence[Combination] | None = None,
    extra: ExtraMetrics = dict,
    autocast: Autocast = nullcontext,
) -> Evaluation:
    """Stream the batches once per combination, adapting; the model is afterwards as it was, bit for bit.

    All streams are served in one pass over the batches, each with weights and an adapter of its own, so that every
    batch is loaded and encoded once. A sample that has none of a combination's modalities is left out of its stream:
    it is neither predicted nor adapted to. No label is used but for the scores.

    Args:
        method: On ``device``.
        batches: The whole part in the order of the streams, the same on every process: a stream cannot be shared out,
            so that processes share the combinations instead.
        device: Where to compute.
        make_adapter: Makes the adapter of one stream.
        combinations: None means all 2**M - 1.
        extra: Makes fresh plugin metrics.
        autocast: Precision context of the run.

    Returns:
        Counts over all processes, without unimodal ones.

    Raises:
        RobustmmError: there is nothing to adapt.
    """
    chosen = list(all_combinations(method.modalities) if combinations is None else combinations)
    result = Evaluation(
        {combo: Tally(method.task.metrics(), extra()) for combo in chosen}, modalities=method.modalities
    )
    parameters = adapted_parameters(make_adapter(), method)
    with only_adapting(method, parameters):
        model = AdaptedModel(method, parameters, autocast)
        own = chosen[distributed.rank() :: distributed.world_size()]
        streams = {combo: Stream(make_adapter(), model) for combo in own}
        for batch in batches:
            on_device = batch.to(device)
            encoded = model.encode(on_device.inputs, batch.observed, method.task.target_size(batch.target))
            for combo, stream in streams.items():
                wanted = presence_of(combo, method.modalities)
                _count(result.combinations[combo], stream, encoded, on_device, wanted)
    return over_processes(result)


def _count(tally: Tally, stream: Stream, encoded: Encoded, batch: Batch, wanted: Tensor) -> None:
    shown = batch.observed & wanted  # (B, M)
    keep = shown.any(dim=1)  # (B,)
    usable = int(keep.sum())
    tally.excluded += len(batch) - usable
    tally.incomplete += int((keep & (shown != wanted).any(dim=1)).sum())
    if not usable:
        return
    target = batch.target
    if usable < len(batch):
        rows = keep.nonzero().squeeze(1)
        shown, rows = shown[rows], rows.to(target.device)
        encoded, target = encoded.rows(rows), target[rows]
    tally.update(stream(encoded, shown).logits, target)
