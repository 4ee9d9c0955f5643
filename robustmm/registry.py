"""What plugins hand over: a `Component` of a kind, and the `Registry` that keeps them apart by kind and name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from robustmm.errors import ConfigError, PluginError, did_you_mean

Fidelity = Literal["own", "code", "part", "rebuilt"]


class Track(Protocol):
    """Hands on items one by one, and may draw how far it is."""

    def __call__(self, label: str, items: Sequence[Any], /) -> Iterable[Any]: ...


class Prepare(Protocol):
    """Writes a data set in the form that is read, from the form in which it is published.

    What is there already and whole is kept, so that a second call goes on where the first was stopped; in the end
    everything is read back once.
    """

    def __call__(self, source: Path, target: Path, track: Track, /) -> str:
        """From folder ``source`` to folder ``target``; returns a line that says what was written.

        Raises:
            DataError: the source is not as published, or what was written cannot be read.
        """


#: Every kind that a plugin can register, with what it is for. The hook is ``robustmm_register_<plural>``.
KINDS: Mapping[str, str] = {
    "task": "what is predicted: loss, rows, metrics and default head",
    "dataset": "samples with their modalities, splits and classes",
    "encoder": "one modality's input to feature levels",
    "trunk": "encoders, missing policy and fusion in their order: inputs to fused levels",
    "fusion": "features of the modalities to one fused feature per level",
    "head": "fused levels to logits",
    "missing_policy": "what stands in for a modality that is not there",
    "sampler": "which combination of modalities a training sample shows",
    "method": "what is computed: modules, teachers, losses",
    "balancer": "how the optimiser sees it: weights, routes, gradients",
    "optimizer": "parameters and gradients to an update",
    "schedule": "learning rate over training",
    "adapter": "test time: a trained model's updates of itself from batches without labels",
    "corruption": "how one modality's values break at test time, in five severities",
    "metric": "a score computed from logits and targets, beside the task's own",
    "callback": "observes a run and changes nothing",
}


def plural(kind: str) -> str:
    """The kind's plural as it stands in its hook name."""
    return {"missing_policy": "missing_policies"}.get(kind, kind + "s")


def hook_name(kind: str) -> str:
    """The hook through which components of ``kind`` are registered."""
    return f"robustmm_register_{plural(kind)}"


def find_kind(word: str) -> str:
    """The kind that ``word`` names: itself, its plural, hyphens for underscores.

    Raises:
        ConfigError: no such kind, with the closest one and all of them.
    """
    forms = {form: kind for kind in KINDS for form in (kind, plural(kind))}
    given = word.lower().replace("-", "_")
    if given in forms:
        return forms[given]
    raise ConfigError([f"unknown kind '{word}'{did_you_mean(given, forms) or '.'} Known: {', '.join(KINDS)}"])


class Options(BaseModel):
    """Base of a component's options: frozen, unknown keys refused, defaults visible in ``robustmm list``."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @classmethod
    def contract_example(cls) -> dict[str, Any] | None:
        """Options with which `robustmm.testing` builds the component; as it stands, the defaults.

        Override it where an option has no default, or where a small network is quicker to test. Options that name
        modalities may name ``m0``, which is there in every contract test. None means that the component cannot be built
        without data from outside: its contract is then checked as far as that goes.
        """
        return {}


@dataclass(frozen=True)
class Component:
    """One registered thing: how to build it, its options, and where it comes from.

    Args:
        name: Key in YAML, unique in its kind; the paper's name in lower case with underscores.
        build: Called with plain keyword arguments: the context of its kind (see `robustmm.hookspecs`) and the options.
        options: Pydantic model of the options.
        summary: One line for listings.
        source: Paper and code, or "standard" for textbook parts.
        fidelity: What the implementation rests on: ``code`` (official code read), ``part`` (some of it),
            ``rebuilt`` (a reconstruction), ``own`` (no published system behind it).
        requires: Capabilities that must be there, such as ``class_probability`` or ``sampler:uniform``.
        conflicts: Capabilities that must not be there.
        provides: Capabilities that this component brings; its own ``kind:name`` is always one of them.
        suits: What it can be used for, as ``{"vector", "image"}`` for an encoder; empty means anything.
        prepare: Of a data set: from the form in which it is published to the one that is read; see `Prepare`.
        origin: Set by the loader: the distribution and module that offered it.
    """

    name: str
    build: Callable[..., Any]
    options: type[Options]
    summary: str
    source: str
    fidelity: Fidelity = "own"
    requires: frozenset[str] = frozenset()
    conflicts: frozenset[str] = frozenset()
    provides: frozenset[str] = frozenset()
    suits: frozenset[str] = frozenset()
    prepare: Prepare | None = None
    origin: str = field(default="", compare=False)


class Registry:
    """Components by kind and name."""

    def __init__(self) -> None:
        self._components: dict[str, dict[str, Component]] = {kind: {} for kind in KINDS}

    def add(self, kind: str, component: Component) -> None:
        """Add a component.

        Raises:
            PluginError: the kind already has a component of that name; both origins are named.
        """
        known = self._components[kind].get(component.name)
        if known is not None:
            raise PluginError(
                f"{kind} '{component.name}' is offered by {known.origin or 'an unnamed plugin'} and by "
                f"{component.origin or 'an unnamed plugin'}; remove one, rename it, "
                f"or name its plugin in ROBUSTMM_DISABLE_PLUGINS"
            )
        self._components[kind][component.name] = component

    def get(self, kind: str, name: str) -> Component:
        """Return a component.

        Raises:
            ConfigError: no such component, with the closest name and all known ones.
        """
        try:
            return self._components[kind][name]
        except KeyError:
            raise ConfigError([self.unknown(kind, name)]) from None

    def unknown(self, kind: str, name: str) -> str:
        """The message for a name that ``kind`` does not have."""
        known = self.names(kind)
        return f"unknown {kind} '{name}'{did_you_mean(name, known) or '.'} Known: {', '.join(known) or 'none'}"

    def names(self, kind: str) -> list[str]:
        """The names of a kind, sorted."""
        return sorted(self._components[kind])

    def all(self, kind: str) -> Iterator[Component]:
        """The components of a kind, by name."""
        return (self._components[kind][name] for name in self.names(kind))
