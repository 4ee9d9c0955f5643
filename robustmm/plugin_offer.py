"""What one plugin offers: its hooks are called, and everything they register is checked before any of it counts."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import get_args

import click
import pluggy

from robustmm import hookspecs
from robustmm.errors import PluginError, did_you_mean
from robustmm.registry import KINDS, Component, Fidelity, Options, hook_name

COMMANDS_HOOK = "robustmm_register_commands"


@dataclass
class Offer:
    """What one plugin registered, held back until all of it is known to be sound."""

    components: list[tuple[str, Component]] = field(default_factory=list)
    commands: list[click.Command] = field(default_factory=list)

    def names(self) -> tuple[str, ...]:
        """``kind:name`` of everything, in the order of registration."""
        return (
            *(f"{kind}:{component.name}" for kind, component in self.components),
            *(f"command:{command.name}" for command in self.commands),
        )


def collect(plugin: object, name: str) -> Offer:
    """Call a plugin's hooks and return what it registered.

    Each plugin has a pluggy manager of its own, so one that fails leaves nothing behind.

    Raises:
        pluggy.PluginValidationError: a hook asks for arguments that it does not get.
        PluginError: a hook that does not exist, or something registered that is not sound.
    """
    manager = pluggy.PluginManager("robustmm")
    manager.add_hookspecs(hookspecs)
    _refuse_unmarked_hooks(plugin)
    manager.register(plugin, name)
    _refuse_unknown_hooks(manager, plugin)
    offer = Offer()
    for kind in KINDS:
        getattr(manager.hook, hook_name(kind))(register=_component_taker(kind, offer))
    getattr(manager.hook, COMMANDS_HOOK)(register=_command_taker(offer))
    return offer


def _refuse_unmarked_hooks(plugin: object) -> None:
    for name, value in vars(plugin).items():
        marked = hasattr(value, "robustmm_impl") or hasattr(value, "robustmm_spec")
        if name.startswith("robustmm_register_") and callable(value) and not marked:
            raise PluginError(f"{name} is not marked as a hook; put @hookimpl above it")


def _refuse_unknown_hooks(manager: pluggy.PluginManager, plugin: object) -> None:
    """As pluggy's ``check_pending``, with the closest name."""
    known = [*map(hook_name, KINDS), COMMANDS_HOOK]
    for hook in manager.get_hookcallers(plugin) or ():
        if not hook.has_spec():
            raise PluginError(f"unknown hook '{hook.name}'{did_you_mean(hook.name, known)}")


def _component_taker(kind: str, offer: Offer) -> hookspecs.Register:
    def register(component: object) -> None:  # plugins are not type checked
        if not isinstance(component, Component):
            raise PluginError(f"{kind} {component!r}: register a robustmm.Component, not {type(component).__name__}")
        problem = _flaw(component)
        if problem:
            raise PluginError(f"{kind} {component.name!r}: {problem}")
        if any((kind, component.name) == (other_kind, other.name) for other_kind, other in offer.components):
            raise PluginError(f"{kind} {component.name!r} is registered twice by one plugin")
        offer.components.append((kind, component))

    return register


def _flaw(component: Component) -> str:
    """What is wrong with a component; empty if nothing is."""
    # Annotated as object, because a plugin's types were never checked.
    name: object = component.name
    options: object = component.options
    build: object = component.build
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        return "a name begins with a lower case letter and has lower case letters, digits and underscores"
    if not (isinstance(options, type) and issubclass(options, Options)):
        return f"options must be a subclass of robustmm.Options, not {options!r}"
    if not callable(build):
        return f"build must be callable, not {build!r}"
    if component.fidelity not in get_args(Fidelity):
        return f"fidelity must be one of {', '.join(get_args(Fidelity))}, not {component.fidelity!r}"
    if not component.summary.strip() or "\n" in component.summary:
        return "summary must be one line of text"
    return ""


def _command_taker(offer: Offer) -> Callable[[object], None]:
    def register(command: object) -> None:
        if not isinstance(command, click.Command) or not command.name:
            raise PluginError(f"command {command!r}: register a click.Command with a name")
        if any(command.name == other.name for other in offer.commands):
            raise PluginError(f"command {command.name!r} is registered twice by one plugin")
        offer.commands.append(command)

    return register
