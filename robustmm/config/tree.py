"""A configuration as a tree that remembers where each key and value was written, and how layers are merged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from robustmm.errors import RobustmmError

Scalar = str | int | float | bool | None
#: Keys and list indices from the root to a value.
KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Origin:
    """Where something was written.

    Args:
        source: File as shown to the user, or the whole override, such as ``-o optimizer.lr=abc``.
        line: Counted from 1; 0 for an override, which has no lines.
        column: Counted from 1; 0 for an override.
    """

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source

    @property
    def order(self) -> tuple[bool, str, int, int]:
        """Sort key: files by name and line, overrides last."""
        return (self.line == 0, self.source, self.line, self.column)


@dataclass(frozen=True)
class Node:
    """A value with its place.

    Args:
        value: A scalar, a mapping of nodes or a tuple of nodes.
        origin: Where the value begins.
        key: Where its key begins; equals ``origin`` for the root and for list items.
        component: Whether this mapping chooses a component by ``name``, see `merge`.
    """

    value: Scalar | Mapping[str, Node] | tuple[Node, ...]
    origin: Origin
    key: Origin
    component: bool = False

    def get(self, part: str | int) -> Node | None:
        """The child under a key or an index, None where there is none."""
        if isinstance(self.value, Mapping):
            return self.value.get(str(part))
        if isinstance(self.value, tuple) and isinstance(part, int) and part < len(self.value):
            return self.value[part]
        return None


def merge(base: Node, over: Node) -> Node:
    """Lay ``over`` on top of ``base``: mappings merge by key, everything else is replaced.

    Where ``over`` chooses another component than ``base``, the options in ``base`` go: they belong to the other one.
    """
    if not isinstance(base.value, Mapping) or not isinstance(over.value, Mapping) or _chooses_another(base, over):
        return over
    merged = dict(base.value)
    for key, node in over.value.items():
        merged[key] = merge(merged[key], node) if key in merged else node
    return replace(over, value=merged, component=base.component or over.component)


def _chooses_another(base: Node, over: Node) -> bool:
    if not base.component:
        return False
    before, after = base.get("name"), over.get("name")
    return before is not None and after is not None and before.value != after.value


def assign(base: Node | None, path: Sequence[str], leaf: Node) -> Node:
    """Merge ``leaf`` into the tree at ``path``; a number in the path is an index where the tree has a list.

    Raises:
        RobustmmError: a list has no item of that index.
    """
    if not path:
        return leaf if base is None else merge(base, leaf)
    head, rest = path[0], path[1:]
    if base is not None and isinstance(base.value, tuple):
        index = _list_index(head, len(base.value))
        changed = assign(base.value[index], rest, leaf)
        return replace(base, value=(*base.value[:index], changed, *base.value[index + 1 :]))
    child = assign(None if base is None else base.get(head), rest, leaf)
    if base is None:
        return Node({head: child}, leaf.origin, leaf.key)
    if not isinstance(base.value, Mapping):
        return Node({head: child}, leaf.origin, base.key)
    return merge(base, replace(base, value={head: child}))


def _list_index(text: str, length: int) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= length:
        accepted = f"an index from 0 to {length - 1}" if length else "no index, for it is empty"
        raise RobustmmError(f"the list takes {accepted}, got '{text}'")
    return int(text)


def plain(node: Node) -> Any:
    """The tree as dictionaries, lists and scalars."""
    if isinstance(node.value, Mapping):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, tuple):
        return [plain(child) for child in node.value]
    return node.value


def walk(node: Node, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Node]]:
    """Every node with its path, parents first."""
    yield path, node
    children: Iterator[tuple[str | int, Node]]
    if isinstance(node.value, Mapping):
        children = iter(node.value.items())
    elif isinstance(node.value, tuple):
        children = iter(enumerate(node.value))
    else:
        return
    for part, child in children:
        yield from walk(child, (*path, part))


def nearest(root: Node, path: KeyPath) -> tuple[Node, bool]:
    """The node at ``path`` and True, or its closest ancestor that was written and False."""
    node = root
    for part in path:
        child = node.get(part)
        if child is None:
            return node, False
        node = child
    return node, True


def dotted(path: KeyPath) -> str:
    """``("callbacks", 0, "name")`` as ``callbacks.0.name``."""
    return ".".join(str(part) for part in path)
