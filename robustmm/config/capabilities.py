"""Whether chosen components can work together, from what they declare; needs no data and builds nothing."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import NamedTuple

from robustmm.registry import Component

#: A component with its kind; a component alone does not know its kind.
Chosen = tuple[str, Component]


class Misfit(NamedTuple):
    """A component that cannot work in this company.

    Args:
        kind: Its kind.
        name: Its name.
        text: What is wrong and how to mend it.
    """

    kind: str
    name: str
    text: str


def check_capabilities(chosen: Sequence[Chosen], assumed: Set[str] = frozenset()) -> list[str]:
    """What keeps the chosen components from working together, one line each; see `find_misfits`."""
    return [misfit.text for misfit in find_misfits(chosen, assumed)]


def find_misfits(chosen: Sequence[Chosen], assumed: Set[str] = frozenset()) -> list[Misfit]:
    """Compare what each component requires and refuses with what the others provide.

    A component provides what it declares and ``kind:name``, such as ``sampler:uniform``.

    Args:
        chosen: Every component of the run with its kind.
        assumed: Capabilities that may still come, as those of the tasks where the data set names the task; whoever
            requires one of them is checked again after that choice.
    """
    providers: dict[str, Chosen] = {}
    for kind, component in chosen:
        for capability in provided(kind, component):
            providers.setdefault(capability, (kind, component))
    misfits = []
    for kind, component in dict.fromkeys(chosen):
        for capability in sorted(component.requires - providers.keys() - assumed):
            misfits.append(Misfit(kind, component.name, _lacking(kind, component, capability, chosen)))
        for capability in sorted(component.conflicts & providers.keys()):
            misfits.append(Misfit(kind, component.name, _clashing(kind, component, capability, providers[capability])))
    return misfits


def provided(kind: str, component: Component) -> frozenset[str]:
    """The capabilities that a component brings."""
    return component.provides | {f"{kind}:{component.name}"}


def _lacking(kind: str, component: Component, capability: str, chosen: Sequence[Chosen]) -> str:
    needs = f"{_named(kind, component)} needs"
    wanted_kind, _, wanted_name = capability.partition(":")
    if not wanted_name:
        return f"{needs} '{capability}', which no chosen component provides; choose one that does"
    wanted = f"{_words(wanted_kind)} '{wanted_name}'"
    others = [_named(of, one) for of, one in chosen if of == wanted_kind]
    instead = f", not {' and '.join(others)}" if others else ""
    return f"{needs} {wanted_kind} '{wanted_name}'{instead}; choose {wanted} or another {_words(kind)}"


def _clashing(kind: str, component: Component, capability: str, other: Chosen) -> str:
    of, one = other
    because = "" if capability == f"{of}:{one.name}" else f", which provides '{capability}'"
    repair = f"choose another {_words(kind)} or {_words(of)}"
    return f"{_named(kind, component)} does not work with {_named(of, one)}{because}; {repair}"


def _named(kind: str, component: Component) -> str:
    return f"{_words(kind)} '{component.name}'"


def _words(kind: str) -> str:
    return kind.replace("_", " ")
