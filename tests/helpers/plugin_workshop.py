"""Makes plugins for tests of the loader: real distributions in a temporary folder, found by importlib.metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from robustmm.plugin_manager import LoadedPlugins, PluginRecord, load_plugins

HEADER = "from robustmm import Balancer, Component, Options, hookimpl\n"


def offering(*balancers: str, build: str = "Balancer", options: str = "Options") -> str:
    """Source of a plugin that offers balancers."""
    calls = "".join(
        f"    register(Component({name!r}, {build}, {options}, 'A test balancer.', 'standard'))\n" for name in balancers
    )
    return f"{HEADER}@hookimpl\ndef robustmm_register_balancers(register):\n{calls or '    pass'}\n"


class Workshop:
    """Plugins below a folder that is on ``sys.path``; nothing real is loaded.

    Args:
        folder: Empty, on ``sys.path``.
        builtins: A name for the package that stands for the built-in plugins, unused elsewhere.
    """

    def __init__(self, folder: Path, builtins: str) -> None:
        self.folder = folder
        self.builtins = builtins
        self.distributions: list[metadata.Distribution] = []
        self.module(f"{builtins}.__init__", "")

    def module(self, name: str, source: str) -> Path:
        """Write a module by its dotted name."""
        path = self.folder / (name.replace(".", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
        return path

    def builtin(self, name: str, source: str) -> Path:
        """Write a module of the built-in package; its parent packages are made."""
        for depth in range(1, name.count(".") + 1):
            self.module(f"{self.builtins}.{'.'.join(name.split('.')[:depth])}.__init__", "")
        return self.module(f"{self.builtins}.{name}", source)

    def install(
        self,
        distribution: str,
        version: str,
        entry_points: Mapping[str, str],
        requires: Sequence[str] = (),
        modules: Mapping[str, str] | None = None,
    ) -> None:
        """Write a distribution's metadata, and its modules by dotted name."""
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {distribution}", f"Version: {version}"]
        lines += [f"Requires-Dist: {line}" for line in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
        points = "".join(f"{name} = {value}\n" for name, value in entry_points.items())
        (info / "entry_points.txt").write_text(f"[robustmm]\n{points}", encoding="utf-8")
        for name, source in (modules or {}).items():
            self.module(name, source)
        self.distributions.append(metadata.Distribution.at(info))

    def load(self, env: Mapping[str, str] | None = None, plugins_dirs: Sequence[Path] = ()) -> LoadedPlugins:
        """Load what was made."""
        points = [point for distribution in self.distributions for point in distribution.entry_points]
        return load_plugins(plugins_dirs, env or {}, entry_points=points, builtins=self.builtins)


def record_of(plugins: LoadedPlugins, name: str) -> PluginRecord:
    """The one record of a plugin."""
    (record,) = [record for record in plugins.records if record.name == name]
    return record
