"""The registry keeps components by kind and name."""

from __future__ import annotations

import dataclasses

import pytest
from pydantic import ValidationError

from robustmm.errors import ConfigError, PluginError
from robustmm.registry import KINDS, Component, Options, Registry, find_kind, hook_name, plural


class NoOptions(Options):
    """None."""


def component(name: str, origin: str = "") -> Component:
    return Component(name, dict, NoOptions, "A test component.", "standard", origin=origin)


def registry_of(*names: str) -> Registry:
    registry = Registry()
    for name in names:
        registry.add("balancer", component(name, "mmx 1.0"))
    return registry


def test_names__are_sorted_and_kept_apart_by_kind() -> None:
    registry = registry_of("b", "a")
    registry.add("method", component("a"))
    assert registry.names("balancer") == ["a", "b"]
    assert [one.name for one in registry.all("balancer")] == ["a", "b"]
    assert registry.names("method") == ["a"]
    assert registry.names("fusion") == []


def test_add__of_a_known_name_names_both_origins() -> None:
    with pytest.raises(PluginError, match=r"^balancer 'a' is offered by mmx 1\.0 and by an unnamed plugin; remove one"):
        registry_of("a").add("balancer", component("a"))


def test_get__suggests_the_closest_name() -> None:
    with pytest.raises(ConfigError) as caught:
        registry_of("ogm_ge", "pmr").get("balancer", "ogm-ge")
    assert str(caught.value) == "unknown balancer 'ogm-ge' - did you mean 'ogm_ge'? Known: ogm_ge, pmr"


def test_get__without_a_close_name_shows_the_known_ones() -> None:
    assert registry_of("pmr").unknown("balancer", "zzz") == "unknown balancer 'zzz'. Known: pmr"
    assert Registry().unknown("head", "zzz") == "unknown head 'zzz'. Known: none"


@pytest.mark.parametrize("kind", KINDS)
def test_find_kind__takes_singular_plural_and_hyphens(kind: str) -> None:
    for word in (kind, plural(kind), kind.replace("_", "-"), plural(kind).upper()):
        assert find_kind(word) == kind


def test_find_kind__suggests_the_closest_kind() -> None:
    with pytest.raises(ConfigError, match=r"^unknown kind 'balancr' - did you mean 'balancer'\? Known: task, dataset"):
        find_kind("balancr")


def test_hook_name__uses_the_plural() -> None:
    assert hook_name("missing_policy") == "robustmm_register_missing_policies"
    assert hook_name("fusion") == "robustmm_register_fusions"


def test_options__refuse_unknown_keys_and_changes() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        NoOptions.model_validate({"alpha": 1})
    assert NoOptions.model_config["frozen"] is True


def test_component__origin_does_not_count_in_comparison() -> None:
    assert component("a", "here") == component("a", "there")
    assert component("a") != dataclasses.replace(component("a"), build=list)
