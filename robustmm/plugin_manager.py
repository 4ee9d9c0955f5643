"""Load plugins one at a time, so that a bad one is reported and the rest works.

Built-ins enter by the same door as third parties: every module below ``robustmm_plugins`` is a plugin, so a new
component is one new file. pluggy's own entry-point loader stops at the first exception, hence the loop here.

Environment:
    ``ROBUSTMM_LOAD_PLUGINS``: comma list of installed plugins or distributions to load; empty loads none of them.
    ``ROBUSTMM_DISABLE_PLUGINS``: comma list of plugins, built-in modules or distributions to leave out.
    ``ROBUSTMM_STRICT_PLUGINS``: 1 makes a failed or incompatible plugin an error.
    ``ROBUSTMM_PLUGINS_DIR``: folders of plugin files, separated as in ``PATH``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import metadata
from typing import Literal

import click
import pluggy
from packaging.requirements import InvalidRequirement, Requirement

from robustmm import PLUGIN_API, __version__
from robustmm.errors import PluginError, did_you_mean
from robustmm.plugin_offer import Offer, collect
from robustmm.plugin_sources import (
    BUILTIN_PACKAGE,
    GROUP,
    PluginSource,
    builtin_sources,
    folder_sources,
    installed_sources,
)
from robustmm.registry import Registry

Status = Literal["loaded", "blocked", "failed", "incompatible"]

_log = logging.getLogger("robustmm.plugins")
_plugins_dirs: tuple[str, ...] = ()


@dataclass(frozen=True)
class PluginRecord:
    """What became of one plugin.

    Args:
        name: What a user calls it, also in ``ROBUSTMM_DISABLE_PLUGINS``.
        distribution: The distribution that brought it (``robustmm`` for built-ins), or the file's path.
        version: Of the distribution; empty for a single file.
        module: Dotted name, entry point value or path of what was imported.
        status: ``loaded``; ``blocked`` by the environment; ``failed`` at import or registration; ``incompatible`` with
            this version of robustmm.
        message: Why it is not loaded.
        components: What it registered, as ``kind:name``.
        origin: How messages refer to it.
        error: What it raised.
    """

    name: str
    distribution: str
    version: str
    module: str
    status: Status
    message: str = ""
    components: tuple[str, ...] = ()
    origin: str = ""
    error: BaseException | None = field(default=None, repr=False, compare=False)

    @property
    def bad(self) -> bool:
        """Whether something is wrong with the plugin; a blocked one is as the user asked."""
        return self.status in ("failed", "incompatible")

    @property
    def verdict(self) -> str:
        """One sentence on what became of a plugin that is not loaded."""
        what = {"failed": "failed to load", "incompatible": "is incompatible"}.get(self.status, f"is {self.status}")
        return f"plugin '{self.name}' ({self.origin}) {what}: {self.message}."


@dataclass(frozen=True)
class LoadedPlugins:
    """Everything the plugins offered.

    Args:
        registry: Components by kind and name.
        commands: Commands of the ``robustmm`` program by name.
        records: One per plugin found, loaded or not.
    """

    registry: Registry
    commands: Mapping[str, click.Command]
    records: tuple[PluginRecord, ...]

    def offering(self, what: str) -> PluginRecord | None:
        """The plugin that registered ``what``, written ``kind:name``."""
        return next((record for record in self.records if what in record.components), None)


class Incompatible(Exception):
    """The plugin was made for another robustmm."""


def get_plugins() -> LoadedPlugins:
    """The plugins of this process, loaded on first use from the environment and the folders of `set_plugins_dirs`."""
    return _load_once(_plugins_dirs)


@cache
def _load_once(plugins_dirs: tuple[str, ...]) -> LoadedPlugins:
    return load_plugins(plugins_dirs)


def set_plugins_dirs(plugins_dirs: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Name the folders whose files are plugins, and forget what `get_plugins` loaded before."""
    global _plugins_dirs
    _plugins_dirs = tuple(os.fspath(folder) for folder in plugins_dirs)
    _load_once.cache_clear()


def plugins_dirs() -> tuple[str, ...]:
    """The folders that `set_plugins_dirs` named, for child processes."""
    return _plugins_dirs


def load_plugins(
    plugins_dirs: Sequence[str | os.PathLike[str]] = (),
    env: Mapping[str, str] = os.environ,
    *,
    entry_points: Iterable[metadata.EntryPoint] | None = None,
    builtins: str = BUILTIN_PACKAGE,
) -> LoadedPlugins:
    """Find, import and register every plugin, and report the bad ones as warnings.

    Args:
        plugins_dirs: Folders in which each ``*.py`` not beginning with an underscore is a plugin.
        env: Environment variables; see the module's docstring.
        entry_points: Those of the group ``robustmm``; the installed ones by default.
        builtins: Package whose modules are the built-in plugins.

    Raises:
        PluginError: two plugins offer one name; a folder is not there; or a plugin is failed or incompatible and
            ``ROBUSTMM_STRICT_PLUGINS`` is set.
    """
    sources = find_plugins(plugins_dirs, env, entry_points=entry_points, builtins=builtins)
    disabled = _listed(sources, env, "ROBUSTMM_DISABLE_PLUGINS") or ()
    allowed = _listed([source for source in sources if source.installed], env, "ROBUSTMM_LOAD_PLUGINS")
    assembly = _Assembly()
    records = [_load_one(source, _why_blocked(source, disabled, allowed), assembly) for source in sources]
    if assembly.clashes:
        raise PluginError("\n".join(assembly.clashes))
    _report(records, strict=env.get("ROBUSTMM_STRICT_PLUGINS", "") not in ("", "0"))
    return LoadedPlugins(assembly.registry, assembly.commands, tuple(records))


def find_plugins(
    plugins_dirs: Sequence[str | os.PathLike[str]] | None = None,
    env: Mapping[str, str] = os.environ,
    *,
    entry_points: Iterable[metadata.EntryPoint] | None = None,
    builtins: str = BUILTIN_PACKAGE,
) -> list[PluginSource]:
    """All plugins there are, not imported; arguments as for `load_plugins`, folders by default of `set_plugins_dirs`.

    Raises:
        PluginError: a folder is not there.
    """
    folders = [
        *(_plugins_dirs if plugins_dirs is None else plugins_dirs),
        *filter(None, env.get("ROBUSTMM_PLUGINS_DIR", "").split(os.pathsep)),
    ]
    points = metadata.entry_points(group=GROUP) if entry_points is None else entry_points
    return [*builtin_sources(builtins), *installed_sources(points), *folder_sources(folders)]


def _listed(sources: Sequence[PluginSource], env: Mapping[str, str], variable: str) -> list[str] | None:
    """The names in a variable, None where it is not set; warns of those that no source answers to."""
    if variable not in env:
        return None
    words = [word.strip() for word in env[variable].split(",") if word.strip()]
    known = sorted({source.name for source in sources} | {source.distribution for source in sources})
    for word in words:
        if not any(source.answers_to(word) for source in sources):
            hint = did_you_mean(word, known) or "."
            _log.warning("%s: no plugin '%s'%s Known: %s", variable, word, hint, ", ".join(known) or "none")
    return words


def _why_blocked(source: PluginSource, disabled: Iterable[str], allowed: Iterable[str] | None) -> str:
    if any(map(source.answers_to, disabled)):
        return "named in ROBUSTMM_DISABLE_PLUGINS"
    if source.installed and allowed is not None and not any(map(source.answers_to, allowed)):
        return "not named in ROBUSTMM_LOAD_PLUGINS"
    return ""


class _Assembly:
    """What was taken over so far, and the clashes found on the way."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.commands: dict[str, click.Command] = {}
        self.clashes: list[str] = []
        self._first: dict[str, tuple[PluginSource, object]] = {}  # by "kind:name"
        self._plugins: list[object] = []

    def seen(self, plugin: object) -> bool:
        """Whether this very object was taken before, through another entry point."""
        known = any(plugin is other for other in self._plugins)
        self._plugins.append(plugin)
        return known

    def take(self, source: PluginSource, offer: Offer) -> None:
        """Take over all that ``source`` offers; what its own distribution offered before is not a clash."""
        for kind, component in offer.components:
            if self._is_repeated(source, f"{kind}:{component.name}", component):
                continue
            try:
                self.registry.add(kind, replace(component, origin=source.origin))
            except PluginError as clash:
                self.clashes.append(str(clash))
        for command in offer.commands:
            name = str(command.name)
            if self._is_repeated(source, f"command:{name}", command):
                continue
            if name in self.commands:
                first, _ = self._first[f"command:{name}"]
                self.clashes.append(
                    f"command '{name}' is offered by {first.origin} and by {source.origin}; "
                    "remove one, rename it, or name its plugin in ROBUSTMM_DISABLE_PLUGINS"
                )
            self.commands.setdefault(name, command)

    def _is_repeated(self, source: PluginSource, what: str, thing: object) -> bool:
        """Whether the same distribution offered the very same thing before; notes who offers it otherwise."""
        first_source, first_thing = self._first.setdefault(what, (source, thing))
        return first_source is not source and (
            first_source.distribution == source.distribution and first_thing == thing
        )


def check_plugin(source: PluginSource) -> PluginRecord:
    """Load one plugin by itself, without the others.

    Raises:
        PluginError: it failed or is incompatible; the cause is what it raised.
    """
    record = _load_one(source, "", _Assembly())
    if record.bad:
        raise PluginError(record.verdict) from record.error
    return record


def _load_one(source: PluginSource, blocked: str, assembly: _Assembly) -> PluginRecord:
    """Load one plugin and hand what it offers to ``assembly``; its failures end in the record."""
    offer = Offer()
    if blocked:
        return _record(source, "blocked", blocked)
    try:
        plugin = import_plugin(source)
        if not assembly.seen(plugin):
            offer = collect(plugin, source.name)
    except (Incompatible, pluggy.PluginValidationError) as error:
        return _record(source, "incompatible", _one_line(error), error=error)
    except (Exception, SystemExit) as error:  # a plugin may raise anything; the others must still load
        return _record(source, "failed", _describe(error), error=error)
    assembly.take(source, offer)
    return _record(source, "loaded", components=offer.names())


def _record(
    source: PluginSource,
    status: Status,
    message: str = "",
    components: tuple[str, ...] = (),
    error: BaseException | None = None,
) -> PluginRecord:
    return PluginRecord(
        name=source.name,
        distribution=source.distribution,
        version=source.version,
        module=source.module,
        status=status,
        message=message,
        components=components,
        origin=source.origin,
        error=error,
    )


def import_plugin(source: PluginSource) -> object:
    """Import a plugin's object.

    Raises:
        Incompatible: its distribution or its ``ROBUSTMM_PLUGIN_API`` asks for another robustmm.
    """
    for needed in _requirements_on_us(source.requirements):
        if not needed.specifier.contains(__version__, prereleases=True):
            raise Incompatible(f"it needs robustmm{needed.specifier}, this is {__version__}")
    plugin = source.load()
    api = getattr(plugin, "ROBUSTMM_PLUGIN_API", PLUGIN_API)
    if api != PLUGIN_API:
        raise Incompatible(f"it was written for plugin interface {api!r}, this is {PLUGIN_API}")
    return plugin


def _requirements_on_us(lines: Iterable[str]) -> Iterator[Requirement]:
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue  # odd metadata of another requirement is not ours to judge
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if requirement.name.lower() == "robustmm" and applies:
            yield requirement


def _describe(error: BaseException) -> str:
    if isinstance(error, PluginError):
        return _one_line(error)
    missing = error.name if type(error) is ModuleNotFoundError else None
    return f"{type(error).__name__}: {missing or _one_line(error)}".removesuffix(": ")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _report(records: Sequence[PluginRecord], *, strict: bool) -> None:
    bad = [record for record in records if record.bad]
    if strict and bad:
        raise PluginError("\n".join(record.verdict for record in bad)) from bad[0].error
    for record in bad:
        _log.warning("%s Its components are unavailable; the rest is loaded.", record.verdict)
