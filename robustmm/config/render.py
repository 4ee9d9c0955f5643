"""A checked configuration as YAML with every default, and the JSON schema for editors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.errors import PydanticInvalidForJsonSchema

from robustmm.config.component import KIND_MARK
from robustmm.config.document import dump, parse
from robustmm.config.schema import RunConfig
from robustmm.config.tree import KeyPath, Node, Origin, walk
from robustmm.registry import KINDS, Component, Registry, plural

#: Comments begin in this column or right after a longer line.
_COMMENT_COLUMN = 44


def to_yaml(config: RunConfig, provenance: Mapping[KeyPath, Origin] | None = None) -> str:
    """The configuration in the order of the schema, every default filled in.

    Args:
        config: A checked configuration; loading the text gives an equal one.
        provenance: Places of what was written (see `LoadedConfig`); each line then ends with a comment that says where
            its value comes from.
    """
    text = dump(config.model_dump(mode="json"))
    return text if provenance is None else _with_origins(text, provenance)


def _with_origins(text: str, provenance: Mapping[KeyPath, Origin]) -> str:
    root, _ = parse(text, "")
    assert root is not None, "what was rendered can be read"
    comments: dict[int, str] = {}
    for path, node in walk(root):
        if _is_leaf(node):
            comments.setdefault(node.origin.line, _origins(path, node, provenance))
    lines = text.splitlines()
    for number, comment in comments.items():
        lines[number - 1] = f"{lines[number - 1]:<{_COMMENT_COLUMN}}  # {comment}"
    return "\n".join(lines) + "\n"


def _is_leaf(node: Node) -> bool:
    """Whether the node stands on one line: a scalar, a list of scalars, or an empty mapping."""
    if isinstance(node.value, tuple):
        return not any(isinstance(item.value, Mapping | tuple) for item in node.value)
    return not node.value or not isinstance(node.value, Mapping)


def _origins(path: KeyPath, node: Node, provenance: Mapping[KeyPath, Origin]) -> str:
    own = provenance.get(path)
    found = {own.source if own else "": str(own or "default")}
    items = range(len(node.value)) if isinstance(node.value, tuple) else ()
    for index in items:  # an override may have changed one item of the list
        place = provenance.get((*path, index))
        if place is not None:
            found.setdefault(place.source, str(place))
    return ", ".join(" ".join(place.split()) for place in found.values())


def json_schema(registry: Registry) -> dict[str, Any]:
    """The JSON schema of a configuration file, with each component's own options.

    Required keys are required only where the file extends no other; a component section may leave its name to a file
    that it extends.
    """
    schema = RunConfig.model_json_schema()
    definitions: dict[str, Any] = schema.setdefault("$defs", {})
    for section in definitions.values():
        section.pop("required", None)
    for kind in KINDS:
        definitions[f"component.{kind}"] = _component_schema(kind, registry, definitions)
    filled = _refer_to_components(schema)
    assert isinstance(filled, dict)
    filled["properties"]["extends"] = {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        "description": "Configuration files that this one builds on, relative to this file.",
    }
    filled["anyOf"] = [{"required": ["extends"]}, {"required": filled.pop("required", [])}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **filled}


def _component_schema(kind: str, registry: Registry, definitions: dict[str, Any]) -> dict[str, Any]:
    names = registry.names(kind)
    unnamed = {
        "type": "object",
        "not": {"required": ["name"]},
        "description": f"Options for the {kind} that an extended file names.",
    }
    return {
        "description": f"{KINDS[kind][:1].upper()}{KINDS[kind][1:]}; 'robustmm list {plural(kind)}' shows all.",
        "oneOf": [
            {"type": "string", "enum": names},
            *(_options_schema(kind, component, definitions) for component in registry.all(kind)),
            unnamed,
        ],
    }


def _options_schema(kind: str, component: Component, definitions: dict[str, Any]) -> dict[str, Any]:
    prefix = f"{kind}.{component.name}."
    try:
        options = component.options.model_json_schema(ref_template=f"#/$defs/{prefix}{{model}}")
    except PydanticInvalidForJsonSchema:  # an option of a type that JSON has no word for; it is checked when loaded
        options = {"type": "object", "properties": {}}
    for model, definition in options.pop("$defs", {}).items():
        definitions[prefix + model] = definition
    options["properties"] = {"name": {"const": component.name}, **options.get("properties", {})}
    options["required"] = ["name", *options.get("required", [])]
    return {**options, "title": component.name, "description": component.summary}


def _refer_to_components(value: Any) -> Any:
    if isinstance(value, list):
        return [_refer_to_components(item) for item in value]
    if not isinstance(value, dict):
        return value
    filled = {key: _refer_to_components(item) for key, item in value.items() if key != KIND_MARK}
    return {**filled, "$ref": f"#/$defs/component.{value[KIND_MARK]}"} if KIND_MARK in value else filled
