"""Data that are not part of the project: tests that read them name their folder with ``@pytest.mark.data(NAME)``."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from wav_files import wav_bytes


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


@pytest.fixture(name="wav_bytes")
def make_wav_bytes() -> Callable[..., bytes]:
    """Makes a WAV file from whole numbers, ``(T,)`` or ``(T, channels)``."""
    return wav_bytes
