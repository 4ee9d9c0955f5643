"""Data that are not part of the project: tests that read them name their folder with ``@pytest.mark.data(NAME)``."""

import os
from pathlib import Path

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
