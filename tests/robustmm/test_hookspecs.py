"""Each kind has one hook, each hook a documented signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from robustmm import hookspecs
from robustmm.registry import KINDS, hook_name

HOOKS: dict[str, Callable[..., Any]] = {
    name: value for name, value in vars(hookspecs).items() if hasattr(value, "robustmm_spec")
}
COMMANDS = "robustmm_register_commands"


def test_hooks__are_one_per_kind_and_one_for_commands() -> None:
    assert sorted(HOOKS) == sorted([*map(hook_name, KINDS), COMMANDS])


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_hook__takes_register_alone(name: str) -> None:
    assert list(inspect.signature(HOOKS[name]).parameters) == ["register"]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_hook__documents_how_build_is_called_and_what_it_returns(kind: str) -> None:
    text = inspect.getdoc(HOOKS[hook_name(kind)]) or ""
    assert text.startswith("Offer ")
    context, arrow, result = text.partition("``build(")[2].partition(" -> ")
    assert arrow, f"{hook_name(kind)} does not show a call of build with its result: {text}"
    assert "**options)" in context
    assert result.split("``")[0]


def test_commands_hook__says_what_to_register() -> None:
    assert "click command" in (inspect.getdoc(HOOKS[COMMANDS]) or "")
