"""Components by name, and which of them acted where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from robustmm.config.component import ComponentSection
from robustmm.registry import Component, Registry


class Builder:
    """Builds components through the registry and remembers which acted where.

    Args:
        registry: Of the loaded plugins.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.used: dict[str, Component] = {}

    def component(self, place: str, kind: str, section: ComponentSection | str) -> Callable[..., Any]:
        """The build function of a section, or of a name with default options, with its options filled in."""
        name = section if isinstance(section, str) else section.name
        component = self.registry.get(kind, name)
        options = component.options() if isinstance(section, str) else section.options
        self.used[place] = component
        return lambda **context: component.build(
            **context, **{key: getattr(options, key) for key in options_of(options)}
        )


def options_of(options: Any) -> list[str]:
    """Names of an options object's fields."""
    return list(type(options).model_fields)
