"""Data that are not part of the project: tests that read them name their folder with ``@pytest.mark.data(NAME)``."""

import importlib.util
import io
import os
import wave
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture
def external_data(request: pytest.FixtureRequest) -> Path:
    """Folder of the data set that the test's ``data`` marker names; skips where it is not there."""
    marker = request.node.get_closest_marker("data")
    assert marker is not None, "a test that reads external data carries pytest.mark.data(NAME)"
    folder = Path(os.environ.get("ROBUSTMM_DATA", "")) / marker.args[0]
    if "ROBUSTMM_DATA" not in os.environ or not folder.is_dir():
        pytest.skip(f"ROBUSTMM_DATA names no folder that holds {marker.args[0]}")
    return folder


@pytest.fixture
def load_tool() -> Callable[[str], ModuleType]:
    """Import a one-file script of ``tools/`` by name."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[3] / "tools" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def wav_bytes() -> Callable[..., bytes]:
    """Make a WAV file from whole numbers, ``(T,)`` or ``(T, channels)``."""

    def make(samples: np.ndarray, rate: int = 8000, width: int = 2) -> bytes:
        columns = samples if samples.ndim == 2 else samples[:, None]
        raw = columns.astype("<i4").tobytes()
        pieces = np.frombuffer(raw, np.uint8).reshape(-1, 4)[:, :width]
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as writer:
            writer.setparams((columns.shape[1], width, rate, 0, "NONE", ""))
            writer.writeframes(pieces.tobytes())
        return buffer.getvalue()

    return make
