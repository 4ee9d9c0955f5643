"""Files and overrides to a checked `RunConfig`; everything that is wrong comes in one error."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robustmm.config.capabilities import Chosen, find_misfits, provided
from robustmm.config.document import Problem, parse
from robustmm.config.messages import Complaint, complaints
from robustmm.config.schema import RunConfig, component_places
from robustmm.config.tree import KeyPath, Node, Origin, assign, dotted, merge, nearest, plain, walk
from robustmm.errors import ConfigError, RobustmmError
from robustmm.registry import Registry

EXTENDS = "extends"


@dataclass(frozen=True)
class LoadedConfig:
    """A checked configuration and where it comes from.

    Args:
        config: The configuration, every default filled in.
        provenance: Path of each key that was written -> place of its value; what is not there is a default.
        sources: The files that were read, bases first.
    """

    config: RunConfig
    provenance: Mapping[KeyPath, Origin]
    sources: tuple[Path, ...]

    def origin(self, key: str) -> str:
        """Where the value of a dotted key comes from: ``file:line:column``, the override, or ``default``."""
        for path, place in self.provenance.items():
            if dotted(path) == key:
                return str(place)
        return "default"


def load_config(paths: Sequence[str | Path], overrides: Sequence[str], registry: Registry) -> LoadedConfig:
    """Read, merge and check a configuration.

    Args:
        paths: YAML files, later ones on top of earlier ones, each on top of the files it extends.
        overrides: ``key.sub=value``, on top of all files; the value is YAML.
        registry: The components that may be named.

    Raises:
        ConfigError: everything that is wrong, sorted by file and line.
    """
    reader = LayerReader()
    layers = [layer for path in paths for layer in reader.read(Path(path), None, ())]
    if reader.broken or not layers:
        raise _error(reader.problems or [Problem(Origin("-c"), "no configuration file given")])
    root = layers[0]
    for layer in layers[1:]:
        root = merge(root, layer)
    root, problems = apply_overrides(root, overrides)
    data = plain(root)
    if data.get("name") is None:
        data["name"] = Path(paths[-1]).stem.lstrip(".") or "run"
    config, found = check(data, registry)
    problems += reader.problems + [Problem(_place(root, one), _worded(one)) for one in found]
    if config is None or problems:
        raise _error(problems)
    provenance = {path: node.origin for path, node in walk(root) if path}
    return LoadedConfig(config, provenance, tuple(reader.sources))


def config_from_mapping(data: Mapping[str, Any], registry: Registry) -> RunConfig:
    """Check a configuration that was made in Python.

    Raises:
        ConfigError: everything that is wrong, by key.
    """
    config, found = check(data, registry)
    if config is None or found:
        raise ConfigError([_worded(one) for one in found])
    return config


def check(data: Mapping[str, Any], registry: Registry) -> tuple[RunConfig | None, list[Complaint]]:
    """Check against the schema, each component's options, and what the components say of one another."""
    try:
        config = RunConfig.model_validate(data, context={"registry": registry})
    except ValidationError as error:
        return None, complaints(error, RunConfig, data)
    return config, _misfits(config, registry)


def _misfits(config: RunConfig, registry: Registry) -> list[Complaint]:
    sections = config.components()
    chosen: list[Chosen] = [(section.kind, registry.get(section.kind, section.name)) for _, section in sections]
    open_kinds = [kind for kind in ("task", "sampler") if getattr(config, kind) is None]
    open_kinds += ["head"] if config.model.head is None else []
    open_kinds += [] if config.model.encoders else ["encoder"]
    assumed = {of for kind in open_kinds for component in registry.all(kind) for of in provided(kind, component)}
    places = {(section.kind, section.name): path for path, section in reversed(sections)}
    return [
        Complaint((*places[misfit.kind, misfit.name], "name"), misfit.text) for misfit in find_misfits(chosen, assumed)
    ]


def _place(root: Node, complaint: Complaint) -> Origin:
    node, exact = nearest(root, complaint.path)
    return node.origin if exact and complaint.about == "value" else node.key


def _worded(complaint: Complaint) -> str:
    return f"{dotted(complaint.path)}: {complaint.text}" if complaint.path else complaint.text


def _error(problems: Iterable[Problem]) -> ConfigError:
    ordered = sorted(problems, key=lambda problem: problem.origin.order)
    return ConfigError(list(dict.fromkeys(str(problem) for problem in ordered)))


class LayerReader:
    """Reads files and the files they extend; keeps what is wrong, so that all of it is reported."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.sources: list[Path] = []
        #: Whether a layer is missing, so that the merged whole would be judged unfairly.
        self.broken = False

    def read(self, path: Path, named_at: Origin | None, chain: tuple[Path, ...]) -> list[Node]:
        """The layers of a file, bases first.

        Args:
            path: The file.
            named_at: Where it is named, None for the command line.
            chain: The files that lead here through ``extends``.
        """
        file = path.resolve()
        if file in chain:
            names = " -> ".join(display(one) for one in (*chain[chain.index(file) :], file))
            return self._break(Problem(named_at or Origin("-c"), f"{EXTENDS}: these files extend one another: {names}"))
        root = self._root(path, named_at)
        if root is None:
            return []
        bases = self._bases(root, file, (*chain, file))
        if file not in self.sources:
            self.sources.append(file)
        assert isinstance(root.value, Mapping)
        layer = replace(root, value={key: child for key, child in root.value.items() if key != EXTENDS})
        return [*bases, shape_components(layer)]

    def _bases(self, root: Node, file: Path, chain: tuple[Path, ...]) -> list[Node]:
        extends = root.get(EXTENDS)
        if extends is None or extends.value is None:
            return []
        items = extends.value if isinstance(extends.value, tuple) else (extends,)
        layers = []
        for item in items:
            if isinstance(item.value, str):
                layers += self.read(file.parent / item.value, item.origin, chain)
            else:
                self._break(Problem(item.origin, f"{EXTENDS}: expected a path or a list of paths"))
        return layers

    def _root(self, path: Path, named_at: Origin | None) -> Node | None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            what = error.strerror if isinstance(error, OSError) else "not a UTF-8 text file"
            where = f"{EXTENDS}: " if named_at else ""
            self._break(Problem(named_at or Origin("-c"), f"{where}cannot read '{display(path)}': {what}"))
            return None
        root, problems = parse(text, display(path))
        if root is None:
            self.broken = True
        elif root.value is None:
            root = replace(root, value={})
        elif not isinstance(root.value, Mapping):
            problems = [*problems, Problem(root.origin, "expected a mapping of keys at the top")]
            self.broken = True
            root = None
        self.problems += problems
        return root

    def _break(self, problem: Problem) -> list[Node]:
        self.broken = True
        self.problems.append(problem)
        return []


def display(path: Path) -> str:
    """A path relative to the current folder where it lies inside, else absolute."""
    absolute = Path(os.path.abspath(path))
    try:
        return str(absolute.relative_to(Path.cwd()))
    except ValueError:
        return str(absolute)


def apply_overrides(root: Node, overrides: Sequence[str]) -> tuple[Node, list[Problem]]:
    """Lay ``key.sub=value`` texts on a tree, those that choose a component first, so that their order is free."""
    problems: list[Problem] = []
    parsed = []
    for text in overrides:
        origin = Origin(f"-o {text}")
        key, equals, value = text.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals or "" in path:
            problems.append(Problem(origin, "expected key=value, such as -o optimizer.lr=0.01"))
            continue
        leaf, wrong = parse(value, origin.source)
        problems += [Problem(origin, problem.text) for problem in wrong]
        if leaf is not None:
            parsed.append((path, shape_components(_at(leaf, origin), path)))
    for path, leaf in sorted(parsed, key=lambda one: not _chooses(one[0])):
        try:
            root = shape_components(assign(root, path, leaf))
        except RobustmmError as error:
            problems.append(Problem(leaf.origin, f"{'.'.join(path)}: {error}"))
    return root, problems


def _at(node: Node, origin: Origin) -> Node:
    value = node.value
    if isinstance(value, Mapping):
        value = {key: _at(child, origin) for key, child in value.items()}
    elif isinstance(value, tuple):
        value = tuple(_at(child, origin) for child in value)
    return Node(value, origin, origin)


def _chooses(path: Sequence[str]) -> bool:
    return is_component(path) or (path[-1] == "name" and is_component(path[:-1]))


@cache
def _places() -> frozenset[tuple[str, ...]]:
    return frozenset(component_places())


def is_component(path: Sequence[str | int]) -> bool:
    """Whether the schema has a component section at this path."""
    parts = tuple(str(part) for part in path)
    return parts in _places() or (bool(parts) and (*parts[:-1], "*") in _places())


def shape_components(node: Node, path: tuple[str | int, ...] = ()) -> Node:
    """Mark the component sections of a tree, a name alone spelt out as a mapping, so that layers merge key by key."""
    if is_component(path):
        if isinstance(node.value, str):
            name = Node(node.value, node.origin, node.key)
            return Node({"name": name}, node.origin, node.key, component=True)
        return replace(node, component=isinstance(node.value, Mapping))
    if isinstance(node.value, Mapping):
        return replace(node, value={key: shape_components(child, (*path, key)) for key, child in node.value.items()})
    if isinstance(node.value, tuple):
        items = (shape_components(child, (*path, index)) for index, child in enumerate(node.value))
        return replace(node, value=tuple(items))
    return node
