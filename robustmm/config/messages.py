"""Pydantic's errors in the user's words: what is accepted, what was given, what was probably meant."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from robustmm.config.tree import KeyPath
from robustmm.errors import did_you_mean

#: What a complaint points at: a key, a key that is not there, or a value.
About = Literal["key", "missing", "value"]

_LONGEST = 48
_WORDS: Mapping[Any, tuple[str, str]] = {
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    Path: ("a path", "paths"),
}
#: Errors whose own sentence says more than the type of the field would.
_OWN_SENTENCE = frozenset({"value_error", "assertion_error", "string_pattern_mismatch"})


class Complaint(NamedTuple):
    """What is wrong with one key, in the user's words.

    Args:
        path: Keys and indices from the section that was checked.
        text: What is wrong.
        about: What it points at.
    """

    path: KeyPath
    text: str
    about: About = "value"


class _Place(NamedTuple):
    """A type that stands at some path, with the constraints on it."""

    annotation: Any
    metadata: tuple[Any, ...] = ()


def complaints(error: ValidationError, model: type[BaseModel], data: Any) -> list[Complaint]:
    """Everything in a validation error, one complaint per key.

    Args:
        error: What pydantic raised.
        model: The model that refused.
        data: What it was given.
    """
    found: dict[KeyPath, Complaint] = {}
    branches: set[KeyPath] = set()
    for details in error.errors(include_url=False):
        path, in_union = _path_in_data(details, data)
        if in_union:
            branches.add(path)
        found.setdefault(path, _complaint(details, path, model, data))
    # Every member of a union complains; the member that got deepest into the value is the one that was meant.
    beaten = {short for short in branches for path in found if len(path) > len(short) and path[: len(short)] == short}
    return [complaint for path, complaint in found.items() if path not in beaten]


def _path_in_data(details: ErrorDetails, data: Any) -> tuple[KeyPath, bool]:
    """The error's location without the names that pydantic inserts for members of a union."""
    path: list[str | int] = []
    location = details["loc"]
    skipped = False
    for position, part in enumerate(location):
        child, there = _child(data, part)
        last = position == len(location) - 1
        if there or (last and details["type"] == "missing") or _adds_key(details):
            path.append(part)
            data = child
        else:
            skipped = True
    return tuple(path), skipped


def _adds_key(details: ErrorDetails) -> bool:
    """Whether the location is made of keys alone: a complaint of a component section, perhaps a default's."""
    return details["type"] == "complaint"


def _child(data: Any, part: str | int) -> tuple[Any, bool]:
    if isinstance(data, Mapping) and part in data:
        return data[part], True
    if isinstance(data, Sequence) and not isinstance(data, str) and isinstance(part, int) and part < len(data):
        return data[part], True
    return None, False


def _complaint(details: ErrorDetails, path: KeyPath, model: type[BaseModel], data: Any) -> Complaint:
    kind = details["type"]
    if kind == "complaint":
        return Complaint(path, details["ctx"]["text"], details["ctx"]["about"])
    if kind == "missing":
        return Complaint(path, "required key is missing", "missing")
    if kind == "extra_forbidden":
        return Complaint(path, unknown_key(str(path[-1]), models_at(model, path[:-1])), "key")
    if details["loc"][-1:] == ("[key]",):  # pydantic's name for a key that the mapping's type refuses
        return Complaint(path, _refused_key(str(path[-1]), places_at(model, path[:-1])), "key")
    given = data
    for part in path:
        given, _ = _child(given, part)
    return Complaint(path, _refusal(details, places_at(model, path), given))


def _refusal(details: ErrorDetails, places: Sequence[_Place], given: Any) -> str:
    if details["type"] in ("too_short", "too_long"):
        context = details["ctx"]
        bound = f"at least {context['min_length']}" if "min_length" in context else f"at most {context['max_length']}"
        return f"expected {bound} item(s), got {context['actual_length']}"
    if details["type"] in _OWN_SENTENCE or not places:
        sentence = details["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        got = "" if isinstance(given, Mapping) else f", got {shown(given)}"  # a whole section says nothing
        return f"{sentence[:1].lower()}{sentence[1:]}{got}"
    accepted = " or ".join(dict.fromkeys(describe(place.annotation, place.metadata) for place in places))
    choices = [str(word) for place in places for word in _literals(place.annotation)]
    hint = did_you_mean(given, choices) if isinstance(given, str) else ""
    return f"expected {accepted}, got {shown(given)}{hint}"


def _refused_key(key: str, places: Sequence[_Place]) -> str:
    members = [member.annotation for place in places for member in _members(place)]
    keys = [get_args(one)[0] for one in members if get_origin(one) is dict]
    accepted = " or ".join(dict.fromkeys(describe(one) for one in keys))
    hint = did_you_mean(key, [str(word) for one in keys for word in _literals(one)])
    return f"expected {accepted} as the key, got {shown(key)}{hint}"


def unknown_key(key: str, models: Sequence[type[BaseModel]]) -> str:
    """The message for a key that none of the models has."""
    fields = {name: field for model in models for name, field in model.model_fields.items()}
    hint = did_you_mean(key, fields)
    if not hint:
        return (
            f"unknown key. Known: {', '.join(sorted(fields))}" if fields else "unknown key; there are no options here"
        )
    closest = hint.split("'")[1]
    field = fields[closest]
    has_plain_default = not field.is_required() and isinstance(field.default, str | int | float | bool)
    default = f" (default {_scalar(field.default)})" if has_plain_default else ""
    return f"unknown key{hint.removesuffix('?')}{default}?"


def shown(value: Any) -> str:
    """A value as the user wrote it, shortened."""
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    text = repr(value) if isinstance(value, str) else _scalar(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, str) else str(value)


def describe(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """What a type accepts, as ``a number greater than 0``."""
    for mark in metadata:
        if hasattr(mark, "words"):
            return str(mark.words)
    members = list(_members(_Place(annotation, tuple(metadata))))
    if len(members) > 1:
        return " or ".join(dict.fromkeys(describe(member.annotation, member.metadata) for member in members))
    if not members:
        return "null"
    return _describe_one(*members[0])


def _describe_one(annotation: Any, metadata: tuple[Any, ...]) -> str:
    if get_origin(annotation) is Literal:
        return _listed(str(word) for word in get_args(annotation))
    if annotation in _WORDS:
        return _WORDS[annotation][0] + _bounds(metadata)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"a mapping with the keys {_listed(annotation.model_fields, 'and')}"
    container = get_origin(annotation) or annotation
    if isinstance(container, type) and issubclass(container, Mapping):
        return "a mapping"
    if isinstance(container, type) and issubclass(container, list | tuple | set | frozenset | Sequence):
        return f"a list{_items(annotation)}"
    for mark in metadata:
        if hasattr(mark, "words"):
            return str(mark.words)
    return getattr(annotation, "__name__", str(annotation))


def _items(annotation: Any) -> str:
    items = [item.annotation for one in get_args(annotation) if one is not Ellipsis for item in _members(_Place(one))]
    kinds = {item for item in items if item in _WORDS}
    if len(kinds) != 1 or len(kinds) != len(set(items)):
        return ""
    fixed = get_origin(annotation) is tuple and Ellipsis not in get_args(annotation)
    return f" of {len(items)} {_WORDS[items[0]][1]}" if fixed else f" of {_WORDS[items[0]][1]}"


def _listed(words: Iterable[str], last: str = "or") -> str:
    every = list(words)
    return every[0] if len(every) == 1 else f"{', '.join(every[:-1])} {last} {every[-1]}"


def _bounds(metadata: Iterable[Any]) -> str:
    said = (("gt", "greater than"), ("ge", "at least"), ("lt", "less than"), ("le", "at most"))
    bounds = [
        f"{words} {limit:g}"
        for name, words in said
        for mark in metadata
        if (limit := getattr(mark, name, None)) is not None
    ]
    return f" {' and '.join(bounds)}" if bounds else ""


def _members(place: _Place) -> Iterator[_Place]:
    """A type without its annotations; the members of a union one by one, None left out."""
    annotation, metadata = place
    origin = get_origin(annotation)
    if origin is typing.Annotated:
        inner, *marks = get_args(annotation)
        inside = [one for mark in marks for one in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]
        yield from _members(_Place(inner, (*metadata, *inside)))
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _members(_Place(member, metadata))
    elif annotation is not type(None):
        yield place


def _literals(annotation: Any) -> list[Any]:
    return [
        word
        for member in _members(_Place(annotation))
        if get_origin(member.annotation) is Literal
        for word in get_args(member.annotation)
    ]


def places_at(model: type[BaseModel], path: KeyPath) -> list[_Place]:
    """The types that a value at ``path`` may have; empty where the path leads out of what the model declares."""
    places = [_Place(model)]
    for part in path:
        places = [below for place in places for member in _members(place) for below in _below(member, part)]
    return places


def _below(place: _Place, part: str | int) -> list[_Place]:
    annotation = place.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        return [] if field is None else [_Place(field.annotation, tuple(field.metadata))]
    arguments = get_args(annotation)
    container = get_origin(annotation)
    if not isinstance(container, type) or not arguments:
        return []
    if issubclass(container, Mapping):
        return [_Place(arguments[1])]
    if container is tuple and Ellipsis not in arguments:
        return [_Place(arguments[part])] if isinstance(part, int) and part < len(arguments) else []
    return [_Place(arguments[0])]


def models_at(model: type[BaseModel], path: KeyPath) -> list[type[BaseModel]]:
    """The models that a mapping at ``path`` may be checked by."""
    return [
        member.annotation
        for place in places_at(model, path)
        for member in _members(place)
        if isinstance(member.annotation, type) and issubclass(member.annotation, BaseModel)
    ]


def loose_values(model: type[BaseModel], data: Mapping[str, Any]) -> list[Complaint]:
    """Values that pydantic would turn into another kind in silence: text as a number, a number as true, true as 1."""
    found = []
    for name, value in data.items():
        places = [member for place in places_at(model, (name,)) for member in _members(place)]
        accepted = {place.annotation for place in places}
        number_wanted = bool(accepted) and accepted <= {int, float}
        if (number_wanted and isinstance(value, str | bool)) or (
            accepted == {bool} and value is not None and not isinstance(value, bool)
        ):
            words = " or ".join(dict.fromkeys(describe(place.annotation, place.metadata) for place in places))
            found.append(Complaint((name,), f"expected {words}, got {shown(value)}"))
    return found
