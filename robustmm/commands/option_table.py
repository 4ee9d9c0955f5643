"""A component's options as text: types, defaults and constraints, taken from the pydantic model."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

#: Attributes of pydantic's constraint objects, with how they are read.
_CONSTRAINTS = {
    "ge": ">= {}",
    "gt": "> {}",
    "le": "<= {}",
    "lt": "< {}",
    "multiple_of": "multiple of {}",
    "min_length": "at least {} long",
    "max_length": "at most {} long",
    "pattern": "matches {}",
}


@dataclass(frozen=True)
class OptionRow:
    """One option.

    Args:
        name: Key in YAML; dotted inside a nested section.
        type: As text, ``float`` or ``a | b``.
        default: A JSON value; None also where ``required``.
        required: It has no default.
        constraints: As text, ``>= 0``.
        description: From the model.
    """

    name: str
    type: str
    default: Any
    required: bool
    constraints: tuple[str, ...]
    description: str

    @property
    def default_text(self) -> str:
        """The default as it would stand in YAML, or "required"."""
        return "required" if self.required else json.dumps(self.default, ensure_ascii=False)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def option_rows(model: type[BaseModel], prefix: str = "") -> Iterator[OptionRow]:
    """One row per option in the order of the model; the options of a nested section follow its name."""
    for key, info in model.model_fields.items():
        name = prefix + (info.alias or key)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from option_rows(info.annotation, name + ".")
        else:
            yield _option_row(name, info)


def _option_row(name: str, info: FieldInfo) -> OptionRow:
    required = info.is_required()
    return OptionRow(
        name=name,
        type=type_text(info.annotation),
        default=None if required else to_jsonable_python(info.get_default(call_default_factory=True)),
        required=required,
        constraints=tuple(_constraints(info.metadata)),
        description=" ".join((info.description or "").split()),
    )


def _constraints(metadata: list[Any]) -> Iterator[str]:
    for item in metadata:
        for attribute, text in _CONSTRAINTS.items():
            bound = getattr(item, attribute, None)
            if bound is not None:
                yield text.format(bound)


def type_text(annotation: Any) -> str:
    """A type as a user reads it: ``float``, ``adam | sgd``, ``list[float > 0]``, ``int | null``."""
    if annotation is None or annotation is type(None):
        return "null"
    annotation = getattr(annotation, "__value__", annotation)  # a named alias stands for its value
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(value if isinstance(value, str) else json.dumps(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return " | ".join(map(type_text, arguments))
    if origin is Annotated:
        return " ".join([type_text(arguments[0]), *_constraints(_flat(arguments[1:]))])
    if origin is not None:
        inner = ", ".join("..." if argument is Ellipsis else type_text(argument) for argument in arguments)
        return f"{origin.__name__.lower()}[{inner}]"
    return str(getattr(annotation, "__name__", annotation))


def _flat(metadata: tuple[Any, ...]) -> list[Any]:
    """Constraint objects, those that ``Field(...)`` holds included."""
    found: list[Any] = []
    for item in metadata:
        found.extend(item.metadata if isinstance(item, FieldInfo) else [item])
    return found
