"""The section that chooses a component by name, checked by the options model of that component."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from robustmm.config.messages import Complaint, complaints, loose_values, shown
from robustmm.registry import Component, Options, Registry

#: Key that stands for a component section in the raw JSON schema until the registry fills it in.
KIND_MARK = "x-robustmm-kind"


@dataclass(frozen=True)
class ComponentSection:
    """A chosen component: in YAML a mapping with ``name`` and the component's own options, or the name alone.

    Args:
        kind: Kind of component, a key of `robustmm.registry.KINDS`.
        name: Registered name.
        options: Every option of the component, defaults filled in; ``dict(options)`` gives keyword arguments.
    """

    kind: str
    name: str
    options: Options

    def as_mapping(self) -> dict[str, Any]:
        """The section as it stands in YAML, with every option; sets are sorted, so that the text is always the same."""
        options = {
            key: sorted(value) if isinstance(getattr(self.options, key, None), set | frozenset) else value
            for key, value in self.options.model_dump(mode="json").items()
        }
        return {"name": self.name, **options}


@dataclass(frozen=True)
class Kind:
    """Annotation of a `ComponentSection` field: which kind of component it takes.

    Validation needs ``context={"registry": registry}``.
    """

    name: str

    @property
    def words(self) -> str:
        """What the field accepts, for messages."""
        return f"{self._name_words}, or a mapping with 'name'"

    @property
    def _name_words(self) -> str:
        article = "an" if self.name[0] in "aeiou" else "a"
        return f"the name of {article} {self.name.replace('_', ' ')}"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            self._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(ComponentSection.as_mapping),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {KIND_MARK: self.name}

    def _validate(self, value: Any, info: ValidationInfo) -> ComponentSection:
        assert info.context is not None, "a configuration is checked against a registry"
        registry: Registry = info.context["registry"]
        if isinstance(value, ComponentSection) and value.kind == self.name:
            return value
        component, raw = self._choose(value, registry)
        options, found = check_options(component, raw)
        if options is None:
            raise complain(found)
        return ComponentSection(self.name, component.name, options)

    def _choose(self, value: Any, registry: Registry) -> tuple[Component, dict[str, Any]]:
        section = {"name": value} if isinstance(value, str) else value
        if not isinstance(section, Mapping):
            raise complain([Complaint((), f"expected {self.words}, got {shown(value)}")])
        if "name" not in section:
            raise complain([Complaint(("name",), "required key is missing", "missing")])
        name = section["name"]
        if not isinstance(name, str):
            raise complain([Complaint(("name",), f"expected {self._name_words}, got {shown(name)}")])
        if name not in registry.names(self.name):
            raise complain([Complaint(("name",), registry.unknown(self.name, name))])
        options = {key: option for key, option in section.items() if key != "name"}
        return registry.get(self.name, name), options


def check_options(component: Component, raw: Mapping[str, Any]) -> tuple[Options | None, list[Complaint]]:
    """Validate a component's options.

    Returns:
        The options, None where something is wrong, and everything that is wrong.
    """
    loose = {complaint.path: complaint for complaint in loose_values(component.options, raw)}
    try:
        options = component.options.model_validate(raw)
    except ValidationError as error:
        strict = {complaint.path: complaint for complaint in complaints(error, component.options, raw)}
        return None, list((strict | loose).values())
    return (None, list(loose.values())) if loose else (options, [])


def complain(found: list[Complaint]) -> ValidationError:
    """Complaints as an error that pydantic merges into the one of the whole configuration."""
    details: list[InitErrorDetails] = [
        {
            "type": PydanticCustomError("complaint", "{text}", {"text": one.text, "about": one.about}),
            "loc": one.path,
            "input": None,
        }
        for one in found
    ]
    return ValidationError.from_exception_data("component", details)
