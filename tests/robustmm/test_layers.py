"""Imports point down, and plugins use public names alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import robustmm

ROOT = Path(__file__).parents[2]
#: Each layer may import from itself and from those after it.
LAYERS = (
    {"__main__"},
    {"cli", "commands"},
    {"predictor", "use"},
    {"sweep"},
    {"run"},
    {"evaluation"},
    {"protocols"},
    {"testing"},
    {"build"},
    {"network"},
    {"builder"},
    {"report"},
    {"launch"},
    {"engine"},
    {"plugin_manager", "plugin_offer", "plugin_sources", "config"},
    {"balancing", "adaptation"},
    {"methods"},
    {"tasks"},
    {"models", "data"},
    {"missing_patterns"},
    {"hookspecs"},
    {"losses", "metrics", "masks", "distributed", "seeding", "corruption"},
    {"signature"},
    {"registry", "types", "audio"},
    {"imports"},
    {"errors"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
CORE = sorted((ROOT / "robustmm").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))


def imported_modules(path: Path) -> list[str]:
    """Dotted names that a file imports absolutely, type checking included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found += [
                f"{node.module}.{alias.name}" if node.module == "robustmm" else node.module for alias in node.names
            ]
    return found


def layer_of(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_core__imports_point_down(path: Path) -> None:
    own = path.relative_to(ROOT / "robustmm").with_suffix("").parts[0]
    if own == "__init__":
        return  # exports names of every layer
    for module in imported_modules(path):
        if module.startswith("robustmm.") and layer_of(module) in LEVEL:
            assert LEVEL[layer_of(module)] >= LEVEL[own], f"{path.name} ({own}) imports {module} from a layer above"


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_core__does_not_import_plugins(path: Path) -> None:
    assert not [module for module in imported_modules(path) if module.split(".")[0] == "robustmm_plugins"]


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: str(path.relative_to(ROOT)))
def test_plugins__import_public_names_only(path: Path) -> None:
    for module in imported_modules(path):
        if module.split(".")[0] == "robustmm":
            name = module.removeprefix("robustmm.")
            assert name in robustmm._MODULE_OF, f"{path.name} imports {module}, which is not a public name"


def test_public_names__all_resolve() -> None:
    for name in robustmm._MODULE_OF:
        assert getattr(robustmm, name) is not None
