"""Full precision for formulas that half precision cannot hold."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor


@contextmanager
def full_precision(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Switch autocast off and hand over ``tensors`` in float32, or in float64 if one of them already is.

    A Gram matrix of 512 channels of value 12 exceeds 65504, the largest number of float16, and a sum over thousands of
    entries loses its last digits in bfloat16; the losses of this package therefore compute like this::

        with full_precision(mu, log_var) as (mu, log_var):
            ...
    """
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
    device = tensors[0].device.type
    # Where it is off already there is nothing to switch; torch.export cannot write graphs that switch it.
    with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext():
        yield tuple(tensor.to(dtype) for tensor in tensors)
