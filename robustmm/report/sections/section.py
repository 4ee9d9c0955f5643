"""What a section is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from robustmm.report.rendering import render


@dataclass(frozen=True)
class Section:
    """One section of a page.

    Args:
        name: Its ``id``, unique on the page.
        title: Its heading.
        entry: Its name in the list of sections.
        template: Of its body, as path below ``report/`` without the ending.
        content: Values for the template.
    """

    name: str
    title: str
    entry: str
    template: str
    content: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RenderedSection:
    """A section with its body as HTML.

    Args:
        name: See `Section`.
        title: See `Section`.
        entry: See `Section`.
        body: Without heading.
    """

    name: str
    title: str
    entry: str
    body: Markup


def rendered(section: Section, shared: Mapping[str, Any]) -> RenderedSection:
    """Render a section.

    Args:
        section: What to show.
        shared: Values that every template of the page may use.
    """
    content = {**shared, **section.content, "heading": f"h-{section.name}"}
    body = render(f"{section.template}.html.jinja", content)
    return RenderedSection(section.name, section.title, section.entry, body)
