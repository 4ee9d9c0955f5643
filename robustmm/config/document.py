"""YAML text to a tree of nodes with places: YAML 1.2 numbers and booleans, duplicate keys refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import yaml

from robustmm.config.tree import Node, Origin, Scalar

_TAG = "tag:yaml.org,2002:"


class Problem(NamedTuple):
    """Something wrong, with its place.

    Args:
        origin: Where.
        text: What, with the key in front where there is one.
    """

    origin: Origin
    text: str

    def __str__(self) -> str:
        return f"{self.origin}  {self.text}"


class _Loader(yaml.SafeLoader):
    """Scalars by YAML 1.2's core schema: ``1e-3`` is a number, ``on``, ``no`` and dates are text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own class attribute


#: (tag, pattern, first characters) of the scalars that are no text.
_CORE_SCHEMA = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever YAML 1.1 or 1.2 would not read as text, writes lists of scalars in one line."""

    yaml_implicit_resolvers = {first: list(known) for first, known in yaml.SafeDumper.yaml_implicit_resolvers.items()}  # noqa: RUF012 - PyYAML's own class attribute

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


for _name, _pattern, _first in _CORE_SCHEMA:
    for _side in (_Loader, _Dumper):
        _side.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), _first)


def _write_text(dumper: _Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar(f"{_TAG}str", text, style=None if text.isprintable() else '"')


def _write_list(dumper: _Dumper, items: list[Any]) -> yaml.Node:
    in_one_line = not any(isinstance(item, dict | list) for item in items)
    return dumper.represent_sequence(f"{_TAG}seq", items, flow_style=in_one_line)


_Dumper.add_representer(str, _write_text)
_Dumper.add_representer(list, _write_list)


def dump(data: Any) -> str:
    """Dictionaries, lists and scalars as YAML that `parse` reads back, each scalar on one line."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=2**31)


def parse(text: str, source: str) -> tuple[Node | None, list[Problem]]:
    """Parse one YAML document.

    Args:
        text: The document.
        source: Its name in messages.

    Returns:
        The tree and what is wrong with it. The tree is None where the text is no YAML; an empty document has the
        value None.
    """
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        origin = Origin(source, 1, 1) if mark is None else Origin(source, mark.line + 1, mark.column + 1)
        return None, [Problem(origin, _syntax_words(error))]
    except yaml.YAMLError as error:  # a character that YAML does not allow; the only error without a mark
        return None, [Problem(Origin(source, 1, 1), f"not readable as YAML: {str(error).splitlines()[0]}")]
    start = Origin(source, 1, 1)
    if root is None:
        return Node(None, start, start), []
    reader = _Reader(source)
    return reader.convert(root, None, ()), reader.problems


def _syntax_words(error: yaml.MarkedYAMLError) -> str:
    what = (error.problem or "unexpected text").replace("\n", " ")
    if "could not find expected ':'" in what:
        what += "; is a colon or a space after it missing?"
    if "'\\t'" in what:
        what += "; indent with spaces"
    context = f" ({error.context})" if error.context else ""
    return f"not valid YAML: {what}{context}"


class _Reader:
    """Turns PyYAML's nodes into ours and notes what is wrong on the way."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[Problem] = []

    def convert(self, node: yaml.Node, key: Origin | None, parents: tuple[yaml.Node, ...]) -> Node:
        origin = self._origin(node)
        place = key or origin
        if node in parents:
            self.problems.append(Problem(origin, "an alias contains itself"))
            return Node(None, origin, place)
        if isinstance(node, yaml.MappingNode):
            return Node(self._mapping(node, (*parents, node)), origin, place)
        if isinstance(node, yaml.SequenceNode):
            return Node(tuple(self.convert(item, None, (*parents, node)) for item in node.value), origin, place)
        return Node(self._scalar(node), origin, place)

    def _origin(self, node: yaml.Node) -> Origin:
        return Origin(self.source, node.start_mark.line + 1, node.start_mark.column + 1)

    def _mapping(self, node: yaml.MappingNode, parents: tuple[yaml.Node, ...]) -> Mapping[str, Node]:
        children: dict[str, Node] = {}
        for key_node, value_node in node.value:
            origin = self._origin(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(origin, "a key must be a plain word"))
                continue
            key = key_node.value
            if key in children:
                self.problems.append(Problem(origin, f"{key}: duplicate key, first at {children[key].key}"))
            children[key] = self.convert(value_node, origin, parents)
        return children

    def _scalar(self, node: yaml.Node) -> Scalar:
        text = str(node.value)
        try:
            return _CONSTRUCT[node.tag.removeprefix(_TAG)](text)
        except (KeyError, ValueError):
            tag = node.tag.replace(_TAG, "!!")
            self.problems.append(Problem(self._origin(node), f"'{text}' cannot be read as {tag}"))
            return None


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _float(text: str) -> float:
    return float(re.sub(r"^([-+]?)\.(inf|nan)$", r"\1\2", text.lower()))


def _int(text: str) -> int:
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


_CONSTRUCT: Mapping[str, Callable[[str], Scalar]] = {
    "null": lambda _text: None,
    "bool": _bool,
    "int": _int,
    "float": _float,
    "str": str,
}
