"""Imports that fail in ways a user can mend."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from robustmm.errors import RobustmmError

#: torchvision's compiled part was not loaded, and its Python part looks for operators that this part defines.
_FOREIGN_BUILD = "operator torchvision::nms does not exist"


def import_torchvision(module: str = "torchvision") -> ModuleType:
    """Import torchvision or a module of it, such as ``torchvision.models``.

    Raises:
        RobustmmError: it is missing or does not fit the installed torch, with the repair.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError, OSError) as error:
        raise RobustmmError(explain_torchvision(error)) from error


def explain_torchvision(error: BaseException) -> str:
    """What a failed import of torchvision means and how to repair it, in one line."""
    torch_version, torchvision_version = _installed("torch"), _installed("torchvision")
    if torchvision_version is None:
        return "torchvision is not installed; install it from the index that torch came from"
    pair = f"torchvision {torchvision_version} and torch {torch_version or '(not installed)'}"
    if _FOREIGN_BUILD in str(error):
        return (
            f"{pair} are of different builds ({_FOREIGN_BUILD}): most often a CPU-only torch from its own index beside "
            "a torchvision from the default index. Uninstall both and install both, in one command, from one index: "
            "for a CPU-only torch the CPU index that PyTorch's installation page names"
        )
    return (
        f"{pair} cannot be imported: {type(error).__name__}: {' '.join(str(error).split())}. "
        "Uninstall both and install both, in one command, from one index"
    )


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
