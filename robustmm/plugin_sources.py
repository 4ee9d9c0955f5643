"""Where plugins are found: the built-in package, the entry-point group ``robustmm``, and folders of single files.

Nothing is imported here; a `PluginSource` says what would be imported, so that blocking a plugin costs nothing and
one that fails at import harms nobody else.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path

from packaging.utils import canonicalize_name

from robustmm import __version__
from robustmm.errors import PluginError

GROUP = "robustmm"
BUILTIN_PACKAGE = "robustmm_plugins"


@dataclass(frozen=True)
class PluginSource:
    """A plugin that was found and is not imported yet.

    Args:
        name: What a user calls it: the entry point's name, or the last part of the module or file name.
        distribution: The distribution that brought it, or the file's path.
        version: Of the distribution; empty for a single file.
        module: What is imported: a dotted name, an entry point's value or a file's path.
        origin: How messages and listings refer to it.
        load: Import it and return the object that carries the hooks; may raise anything.
        requirements: ``Requires-Dist`` lines of the distribution.
        installed: It comes from an installed distribution other than robustmm.
        short_module: Of a built-in: its dotted name below the package, such as ``balancing.ogm``.
    """

    name: str
    distribution: str
    version: str
    module: str
    origin: str
    load: Callable[[], object]
    requirements: tuple[str, ...] = ()
    installed: bool = False
    short_module: str = ""

    def answers_to(self, word: str) -> bool:
        """Whether ``word`` names this plugin: its name, module, module below the package, or distribution."""
        names = {self.name, self.module, self.short_module}
        return word in names or canonicalize_name(word) == canonicalize_name(self.distribution)


def builtin_sources(package: str = BUILTIN_PACKAGE) -> Iterator[PluginSource]:
    """Every module below ``package`` whose name does not begin with an underscore, sorted by dotted name."""
    for module in sorted(_modules_below(importlib.import_module(package).__path__, package)):
        yield PluginSource(
            name=module.rpartition(".")[2],
            distribution="robustmm",
            version=__version__,
            module=module,
            origin=module,
            load=partial(importlib.import_module, module),
            short_module=module.removeprefix(package + "."),
        )


def _modules_below(paths: Iterable[str], package: str) -> Iterator[str]:
    folders = list(paths)
    for info in pkgutil.iter_modules(folders):
        if info.name.startswith("_"):
            continue
        if info.ispkg:
            yield from _modules_below([os.path.join(folder, info.name) for folder in folders], f"{package}.{info.name}")
        else:
            yield f"{package}.{info.name}"


def installed_sources(entry_points: Iterable[EntryPoint]) -> Iterator[PluginSource]:
    """One source per entry point; a distribution that names one object twice offers it once."""
    seen: set[tuple[str, str]] = set()
    for point in sorted(entry_points, key=lambda point: (point.dist.name if point.dist else "", point.name)):
        distribution = point.dist.name if point.dist else point.value.partition(".")[0]
        version = point.dist.version if point.dist else ""
        key = (canonicalize_name(distribution), point.value)
        if key in seen:
            continue
        seen.add(key)
        yield PluginSource(
            name=point.name,
            distribution=distribution,
            version=version,
            module=point.value,
            origin=f"{distribution} {version}".strip(),
            load=point.load,
            requirements=tuple(point.dist.requires or ()) if point.dist else (),
            installed=True,
        )


def folder_sources(folders: Sequence[str | os.PathLike[str]]) -> Iterator[PluginSource]:
    """One source per ``*.py`` in each folder, but for tests and names that begin with an underscore.

    Raises:
        PluginError: a folder is not there.
    """
    paths: dict[Path, Path] = {}  # resolved -> as given, so a folder named twice counts once
    for folder in map(Path, folders):
        if not folder.is_dir():
            kind = "is not a folder" if folder.exists() else "does not exist"
            raise PluginError(f"--plugins-dir {folder}: {kind}; name a folder that holds one .py file per plugin")
        for path in sorted(folder.glob("*.py")):
            if not path.name.startswith(("_", "test_")) and path.name != "conftest.py":
                paths.setdefault(path.resolve(), path)
    return (file_source(path) for path in paths.values())


def file_source(path: Path) -> PluginSource:
    """The source for a single plugin file."""
    return PluginSource(
        name=path.stem,
        distribution=str(path),
        version="",
        module=str(path),
        origin=str(path),
        load=partial(_import_file, path),
    )


def _import_file(path: Path) -> object:
    # The checksum keeps files of one name in two folders apart in sys.modules.
    name = f"robustmm_file_{path.stem}_{zlib.crc32(str(path.resolve()).encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:  # also a SystemExit or Ctrl-C must not leave half a module behind
        del sys.modules[name]
        raise
    return module
