"""segmentation-models-pytorch, imported when an encoder or a head of it is built: its import takes seconds."""

from __future__ import annotations

import importlib
from types import ModuleType

from robustmm import RobustmmError, import_torchvision

LIBRARY = "segmentation_models_pytorch"


def import_smp(module: str) -> ModuleType:
    """Import a module of segmentation-models-pytorch, such as ``encoders`` or ``decoders.unet.decoder``.

    Raises:
        RobustmmError: the library is not installed or cannot be imported, with the repair.
    """
    try:
        importlib.import_module(LIBRARY)
        return importlib.import_module(f"{LIBRARY}.{module}")
    except (ImportError, RuntimeError, OSError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == LIBRARY:
            raise RobustmmError(
                "segmentation-models-pytorch is not installed: pip install segmentation-models-pytorch"
            ) from error
        import_torchvision()  # the library is built on it, and its failure is the one that can be explained
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise RobustmmError(
            f"segmentation-models-pytorch cannot be imported ({text}); version 0.5 or newer is needed, install it again"
        ) from error
