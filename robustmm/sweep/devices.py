"""CUDA devices that runs may be spread over."""

from __future__ import annotations

import os


def cuda_devices() -> tuple[str, ...]:
    """Their names as ``CUDA_VISIBLE_DEVICES`` has them; empty without any."""
    import torch  # imported late: the plan and the pool need none of it

    if not torch.cuda.is_available():
        return ()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return tuple(named.split(",")) if named else tuple(str(number) for number in range(torch.cuda.device_count()))
