"""What every component promises, whatever its kind: a name, a summary, a source, and options that check themselves."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

from robustmm.registry import KINDS, Component
from robustmm.testing.contract import check, example_options, require

UNKNOWN = "no_such_option"


@check(*KINDS)
def describes_itself(component: Component) -> None:
    """A name of lower case letters and underscores, a summary of one line, a source."""
    require(
        re.fullmatch(r"[a-z][a-z0-9_]*", component.name) is not None,
        f"the name '{component.name}' must begin with a lower case letter and go on with those, digits, underscores",
    )
    summary = component.summary.strip()
    require(bool(summary) and "\n" not in summary, f"the summary must be one line of text, not {component.summary!r}")
    require(bool(component.source.strip()), "the source is empty; name the paper and code, or say 'standard'")


@check(*KINDS)
def options_have_descriptions(component: Component) -> None:
    """Each option says what it does, for listings."""
    silent = [name for name, field in component.options.model_fields.items() if not field.description]
    require(not silent, f"{component.options.__name__}: give {', '.join(silent)} a Field(description=...)")


@check(*KINDS)
def options_refuse_unknown_keys(component: Component) -> None:
    """A misspelt option is an error, not ignored."""
    given: dict[str, Any] = {UNKNOWN: 1}
    try:
        component.options.model_validate(given)
    except ValidationError as error:
        if any(problem["type"] == "extra_forbidden" for problem in error.errors()):
            return
    require(False, f"{component.options.__name__} takes unknown keys; keep model_config of robustmm.Options")


@check(*KINDS)
def options_survive_json(component: Component) -> None:
    """Options come back from JSON as they were, which the resolved configuration relies on."""
    options = example_options(component)
    again = type(options).model_validate_json(options.model_dump_json())
    require(again == options, f"options {options!r} come back from JSON as {again!r}")
