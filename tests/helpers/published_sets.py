"""Builds and prepares the tiny published sets of `official_layouts`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from robustmm_plugins.datasets import cityscapes, nyuv2, sunrgbd

from robustmm import DataSplits

NAMES = ("nyuv2", "sunrgbd", "cityscapes")
_MODULES: dict[str, Any] = {"nyuv2": nyuv2, "sunrgbd": sunrgbd, "cityscapes": cityscapes}
_OPTIONS: dict[str, Any] = {
    "nyuv2": nyuv2.NyuOptions,
    "sunrgbd": sunrgbd.SunOptions,
    "cityscapes": cityscapes.CityscapesOptions,
}


def silent(label: str, items: Sequence[Any]) -> Sequence[Any]:
    """A `Track` that draws nothing."""
    return items


def build(name: str, root: Path, **options: Any) -> DataSplits:
    """A set in a tiny size, with default options otherwise."""
    chosen = _OPTIONS[name](root=str(root), **{"size": (48, 64), **options})
    make: Callable[..., DataSplits] = getattr(_MODULES[name], f"build_{name}")
    return make(**dict(chosen))


def prepare(name: str, source: Path, target: Path, track: Any = silent) -> str:
    """The prepared tree of a set; returns the line that says what was written."""
    make: Callable[..., str] = getattr(_MODULES[name], f"prepare_{name}")
    return make(source, target, track)
