"""Every command line test is alone: in a folder of its own, without the plugins of another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from robustmm.plugin_manager import set_plugins_dirs


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    set_plugins_dirs()
    yield
    set_plugins_dirs()
