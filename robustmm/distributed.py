"""Sums and gathers over the processes of a run; each is a no-op where there is one process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


def is_parallel() -> bool:
    """Whether several processes take part."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if is_parallel() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if is_parallel() else 1


def barrier() -> None:
    """Wait until every process is here."""
    if is_parallel():
        dist.barrier()


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """The sum of a tensor over processes."""
    if not is_parallel():
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total


def gather_objects(item: T) -> list[T]:
    """Every process's object, in rank order."""
    if not is_parallel():
        return [item]
    items: list[T | None] = [None] * world_size()
    dist.all_gather_object(items, item)
    return cast("list[T]", items)  # every place has been filled, with None where that was a process's object


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their mean over processes, in one message; a parameter without one anywhere keeps none.

    The mean of per-process batch means equals the mean over all samples only for equal batches, which the loaders give.
    """
    if not is_parallel():
        return
    owned = [parameter for parameter in parameters if parameter.requires_grad]
    has = torch.tensor([float(parameter.grad is not None) for parameter in owned], device=owned[0].device)
    dist.all_reduce(has)
    used = [parameter for parameter, anywhere in zip(owned, has.tolist(), strict=True) if anywhere]
    if not used:
        return
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in used])
    dist.all_reduce(flat)
    flat /= world_size()
    for parameter, piece in zip(used, torch.split(flat, [p.numel() for p in used]), strict=True):
        parameter.grad = piece.view_as(parameter).clone()


def average_buffers(module: nn.Module) -> None:
    """Replace float buffers, such as BatchNorm statistics, by their mean over processes."""
    if not is_parallel():
        return
    for buffer in module.buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer /= world_size()


def broadcast_module(module: nn.Module) -> None:
    """Give every process the first one's parameters and buffers."""
    if not is_parallel():
        return
    for tensor in [*module.parameters(), *module.buffers()]:
        dist.broadcast(tensor.data, src=0)
