"""What is shipped: packages and data files, declared dependencies, and a built wheel that works elsewhere."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_runs import write_config
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import robustmm

ROOT = Path(__file__).parents[1]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, SETUPTOOLS = PYPROJECT["project"], PYPROJECT["tool"]["setuptools"]
#: Folder -> the package it is shipped as.
HOMES = {"robustmm": "robustmm", "plugins": "robustmm_plugins"}
#: Import name -> distribution, where they differ.
DISTRIBUTIONS = {
    "yaml": "pyyaml",
    "pil": "pillow",
    "pydantic-core": "pydantic",
    "annotated-types": "pydantic",
    "cv2": "opencv-python-headless",
    "sklearn": "scikit-learn",
}
#: Functions that import a part of one library.
IMPORTERS = {"import_smp": "segmentation_models_pytorch", "import_torchvision": "torchvision", "import_cv2": "cv2"}
#: Needed without an import of ours: torch.utils.tensorboard, which we use, is built on it.
INDIRECT = {"tensorboard"}
#: Data sets that come with the package.
SHIPPED = {"blocks_rgbd_sim", "diabetes", "emoji_image_text", "handwritten_6views", "smartwatch_imu"}
SOURCES = ("robustmm", "plugins", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "CHANGELOG.md")


def package_name(folder: Path) -> str:
    first, *rest = folder.relative_to(ROOT).parts
    return ".".join([HOMES[first], *rest])


def folders_with(pattern: str) -> set[Path]:
    return {path.parent for home in HOMES for path in (ROOT / home).rglob(pattern)}


def runtime_requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for name, extra in extras.items() if name != "dev" for line in extra)]
    return [Requirement(line) for line in lines]


def imported_distributions() -> Iterator[str]:
    for home in HOMES:
        for path in (ROOT / home).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    yield from (alias.name.partition(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                    yield node.module.partition(".")[0]
                elif isinstance(node, ast.Call):
                    yield from _imported_by(node)


def _imported_by(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func).rpartition(".")[2]
    if name in IMPORTERS:
        yield IMPORTERS[name]
    elif name.startswith("import_"):
        parts = [
            part
            for argument in call.args
            for part in (argument.values[:1] if isinstance(argument, ast.JoinedStr) else [argument])
        ]
        texts = [part.value for part in parts if isinstance(part, ast.Constant)]
        yield from (text.partition(".")[0] for text in texts if isinstance(text, str))


# What pyproject.toml says


def test_packages__are_the_folders_on_disk() -> None:
    assert sorted(SETUPTOOLS["packages"]) == sorted(map(package_name, folders_with("__init__.py")))
    assert folders_with("*.py") == folders_with("__init__.py"), "a folder with modules lacks its __init__.py"


def test_package_data__match_every_file_that_is_no_module() -> None:
    homes = {package_name(folder): folder for folder in folders_with("__init__.py")}
    matched = {
        path
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        for path in homes[package].glob(pattern)
        if path.is_file()
    }
    present = {
        path
        for home in HOMES
        for path in (ROOT / home).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and "__pycache__" not in path.parts
    }
    assert present == matched
    assert ROOT / "robustmm" / "py.typed" in present
    embedded = ROOT / "plugins" / "datasets" / "embedded"
    assert {path.name for path in embedded.iterdir()} == SHIPPED
    assert sum(path.stat().st_size for path in embedded.rglob("*") if path.is_file()) <= 15 * 2**20


def test_dependencies__have_lower_bounds_only() -> None:
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    for requirement in map(Requirement, lines):
        assert {one.operator for one in requirement.specifier} <= {">="}, f"{requirement} has an upper bound"
    for requirement in runtime_requirements():
        assert len(requirement.specifier) == 1, f"{requirement} has no lower bound"
    assert PROJECT["requires-python"] == ">=3.11"


def test_dependencies__are_those_that_are_imported() -> None:
    declared = {canonicalize_name(requirement.name) for requirement in runtime_requirements()}
    names = {canonicalize_name(name) for name in imported_distributions()}
    foreign = names - {canonicalize_name(name) for name in sys.stdlib_module_names} - set(HOMES.values())
    imported = {DISTRIBUTIONS.get(name, name) for name in foreign} - {"pytest", "robustmm-plugins"}
    assert imported == declared - INDIRECT


def test_dependencies__of_one_name_have_one_bound() -> None:
    bounds: dict[str, set[str]] = {}
    for extra in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]:
        for requirement in map(Requirement, extra):
            bounds.setdefault(canonicalize_name(requirement.name), set()).add(str(requirement.specifier))
    assert not {name: found for name, found in bounds.items() if len(found) > 1}


def test_version__is_the_one_in_the_package() -> None:
    assert PROJECT["version"] == robustmm.__version__


# A wheel, built and installed elsewhere


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the sdist, the wheel that was built from it, and the log."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:  # a copy, so that nothing is written beside the sources and nothing stale is shipped
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, source)
    made = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    (folder / "log").write_text(made.stdout + made.stderr, encoding="utf-8")
    assert made.returncode == 0, made.stdout + made.stderr
    return folder


@pytest.fixture(scope="module")
def installed(built: Path) -> Path:
    """Folder in which the wheel alone is installed."""
    (wheel,) = (built / "dist").glob("*.whl")
    target = built / "site"
    options = ["--quiet", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(wheel)], check=True)
    return target


def elsewhere(installed: Path, *arguments: str) -> str:
    """Output of Python where the wheel is installed, in a folder beside it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ROBUSTMM_")}
    environment |= {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    folder = installed.parent / "elsewhere"
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-P", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_build__gives_no_warning_of_ours(built: Path) -> None:
    log = (built / "log").read_text(encoding="utf-8")
    lines = [line for line in log.splitlines() if "warn" in line.lower() or "deprecat" in line.lower()]
    # Named in our MANIFEST.in, but not in the copied part; and Python told not to write bytecode.
    harmless = ("no previously-included files", "no files found", "no directories found", "byte-compiling is disabled")
    assert [line for line in lines if not any(text in line for text in harmless)] == []


def test_wheel__holds_code_data_and_licence_alone(built: Path) -> None:
    (wheel,) = (built / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"robustmm-{robustmm.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"robustmm", "robustmm_plugins", info}
    assert {f"{info}/licenses/LICENSE", "robustmm/py.typed", "robustmm/report/report.css"} <= names
    assert "robustmm_plugins/datasets/embedded/handwritten_6views/NOTICE.txt" in names


def test_sdist__holds_what_it_is_built_from(built: Path) -> None:
    (sdist,) = (built / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "plugins/methods/dmrnet.py"} <= names
    assert "plugins/datasets/embedded/smartwatch_imu/subject01.npz" in names


def test_wheel__lists_its_components_and_data_elsewhere(installed: Path) -> None:
    code = "import robustmm, robustmm_plugins; print(robustmm.__file__); print(robustmm_plugins.__file__)"
    for line in elsewhere(installed, "-c", code).splitlines():
        assert line.startswith(str(installed)), f"{line} is not the installed wheel"
    assert "handwritten_6views" in elsewhere(installed, "-m", "robustmm", "list", "dataset")
    listed = json.loads(elsewhere(installed, "-m", "robustmm", "data", "list", "--json"))
    shipped = {one["name"] for one in listed if one["state"] == "shipped"}
    assert shipped == SHIPPED


def test_wheel__trains_elsewhere(installed: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, train={"epochs": 1})
    elsewhere(installed, "-m", "robustmm", "train", "-c", config, "--folder", str(tmp_path / "made"))
    assert (tmp_path / "made" / "DONE").is_file()
    assert "<svg" in (tmp_path / "made" / "report.html").read_text(encoding="utf-8")
