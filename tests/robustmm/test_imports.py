"""A torchvision that does not fit the installed torch is explained, with the repair."""

from __future__ import annotations

import importlib
import sys

import pytest

from robustmm import imports
from robustmm.errors import RobustmmError
from robustmm.imports import explain_torchvision, import_torchvision


@pytest.fixture
def _versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "_installed", {"torch": "2.11.0+cpu", "torchvision": "0.26.0"}.get)


@pytest.mark.usefixtures("_versions")
def test_import_torchvision__of_another_build_names_both_and_the_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(RobustmmError) as caught:
        import_torchvision("torchvision.models")
    assert str(caught.value) == (
        "torchvision 0.26.0 and torch 2.11.0+cpu are of different builds (operator torchvision::nms does not exist): "
        "most often a CPU-only torch from its own index beside a torchvision from the default index. Uninstall both "
        "and install both, in one command, from one index: for a "
        "CPU-only torch the CPU index that PyTorch's installation page names"
    )


@pytest.mark.usefixtures("_versions")
def test_explain_torchvision__other_failures_are_quoted() -> None:
    text = explain_torchvision(OSError("libcudart.so.13:\ncannot open shared object file"))
    assert "cannot be imported: OSError: libcudart.so.13: cannot open shared object file." in text
    assert "torchvision 0.26.0 and torch 2.11.0+cpu" in text


def test_explain_torchvision__missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "_installed", {"torch": "2.11.0"}.get)
    assert explain_torchvision(ImportError()) == (
        "torchvision is not installed; install it from the index that torch came from"
    )


def test_import_torchvision__gives_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", sys)  # the real one takes seconds to import
    monkeypatch.setitem(sys.modules, "torchvision", sys)
    assert import_torchvision("torchvision.models") is sys
