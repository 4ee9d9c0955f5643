from __future__ import annotations

from robustmm.config.capabilities import check_capabilities
from robustmm.registry import Component, Options


def component(name: str, **declared: frozenset[str]) -> Component:
    return Component(name, dict, Options, "", "", **declared)


def test_capabilities__are_provided_by_name_and_by_declaration() -> None:
    needy = component("needy", requires=frozenset({"scores", "sampler:uniform"}))
    helper = component("helper", provides=frozenset({"scores"}))
    assert check_capabilities([("balancer", needy), ("task", helper), ("sampler", component("uniform"))]) == []


def test_capabilities__name_both_components_and_the_repair() -> None:
    chosen = [
        ("balancer", component("needy", requires=frozenset({"scores", "sampler:uniform"}))),
        ("sampler", component("fixed")),
        ("method", component("shy", conflicts=frozenset({"loud", "sampler:fixed"}))),
        ("missing_policy", component("band", provides=frozenset({"loud"}))),
    ]
    assert check_capabilities(chosen) == [
        "balancer 'needy' needs sampler 'uniform', not sampler 'fixed'; choose sampler 'uniform' or another balancer",
        "balancer 'needy' needs 'scores', which no chosen component provides; choose one that does",
        "method 'shy' does not work with missing policy 'band', which provides 'loud'; "
        "choose another method or missing policy",
        "method 'shy' does not work with sampler 'fixed'; choose another method or sampler",
    ]


def test_capabilities__that_may_still_come_are_not_missed() -> None:
    needy = component("needy", requires=frozenset({"scores", "more"}))
    assert check_capabilities([("balancer", needy)], assumed={"scores", "more"}) == []
    assert len(check_capabilities([("balancer", needy)], assumed={"scores"})) == 1


def test_capabilities__of_a_component_chosen_twice_are_reported_once() -> None:
    needy = component("mlp", requires=frozenset({"scores"}))
    assert len(check_capabilities([("encoder", needy), ("encoder", needy)])) == 1
