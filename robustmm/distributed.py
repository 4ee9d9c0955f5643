"""Sums and gathers over the processes of a run; each is a no-op where there is one process."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping, Sequence
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


def gather_rows(tensor: Tensor) -> Tensor:
    """Every process's rows of a tensor (N, ...) one after the other in rank order, on the CPU; N may differ."""
    return torch.cat(gather_objects(tensor.detach().cpu()))


def gather_equal(tensor: Tensor) -> Tensor:
    """Every process's tensor (N, ...) one after the other in rank order, on its device; of one shape on all of them."""
    if not is_parallel():
        return tensor.detach()
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor.detach().contiguous())
    return torch.cat(parts)


def gather_objects(item: T) -> list[T]:
    """Every process's object, in rank order."""
    if not is_parallel():
        return [item]
    items: list[T | None] = [None] * world_size()
    dist.all_gather_object(items, item)
    return cast("list[T]", items)  # every place has been filled, with None where that was a process's object


def average_gradients(
    parameters: Iterable[nn.Parameter], apart: MutableMapping[nn.Parameter, Tensor] | None = None
) -> None:
    """Replace gradients by their mean over processes, in one message; a parameter without one anywhere keeps none.

    The mean of per-process batch means equals the mean over all samples only for equal batches, which the loaders give.

    Args:
        parameters: The same on every process.
        apart: Further gradients of some of them, averaged likewise.
    """
    if not is_parallel():
        return
    owned = [parameter for parameter in parameters if parameter.requires_grad]
    further = {} if apart is None else apart
    gradients = [parameter.grad for parameter in owned] + [further.get(parameter) for parameter in owned]
    means = _means(gradients, [*owned, *owned])
    for parameter, own, other in zip(owned, means[: len(owned)], means[len(owned) :], strict=True):
        parameter.grad = own
        if other is not None:
            further[parameter] = other


def _means(tensors: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor | None]:
    """Mean of each tensor over processes, None counting as zeros; None where no process has one."""
    has = torch.tensor([float(tensor is not None) for tensor in tensors], device=like[0].device)
    dist.all_reduce(has)
    used = [place for place, anywhere in enumerate(has.tolist()) if anywhere]
    means: list[Tensor | None] = [None] * len(tensors)
    if not used:
        return means
    filled = [torch.zeros_like(like[place]) if (own := tensors[place]) is None else own for place in used]
    flat = torch.cat([tensor.flatten() for tensor in filled])
    dist.all_reduce(flat)
    flat /= world_size()
    for place, piece in zip(used, torch.split(flat, [tensor.numel() for tensor in filled]), strict=True):
        means[place] = piece.view_as(like[place]).clone()
    return means


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
