"""The public side of `robustmm.testing`: one line in a plugin's tests, one call for a report."""

import json
import sys
import types

import pytest
import torch
from broken import component
from pydantic import Field

import robustmm.testing
from robustmm import CombinationSampler, Options, RobustmmError, hookimpl
from robustmm.registry import KINDS
from robustmm.testing import NotApplicable, check_component, checks_for, contract_tests, offered

SOUND = component(lambda modalities: CombinationSampler(), name="sound")


class ShowsNothing(CombinationSampler):
    def __call__(self, observed, generator):
        return torch.zeros_like(observed)


class OutsideOptions(Options):
    @classmethod
    def contract_example(cls):
        return None


class NamedModality(Options):
    modality: str = Field(description="of one's choice")

    @classmethod
    def contract_example(cls):
        return {"modality": "m0"}


def plugin_module(*components):
    module = types.ModuleType("plugin_under_test")

    @hookimpl
    def robustmm_register_samplers(register):
        for one in components:
            register(one)

    module.robustmm_register_samplers = robustmm_register_samplers
    return module


def ids_of(test):
    (mark,) = test.pytestmark
    return [case.id for case in mark.args[1]]


def test_checks_for__has_checks_for_every_kind():
    assert all(len(checks_for(kind)) > 4 for kind in KINDS)
    assert checks_for("samplers") == checks_for("sampler")
    assert all(check.__doc__ for kind in KINDS for check in checks_for(kind))


def test_check_component__passes_a_sound_component():
    check_component("sampler", SOUND)


def test_check_component__names_component_and_every_failed_check():
    bad = component(lambda modalities: ShowsNothing(), name="greedy", source="")
    with pytest.raises(AssertionError) as caught:
        check_component("sampler", bad)
    assert str(caught.value).splitlines() == [
        "sampler 'greedy' breaks its contract:",
        "  describes_itself: the source is empty; name the paper and code, or say 'standard'",
        "  leaves_something_to_every_sample: a sample that has modalities is shown with none",
    ]


def test_check_component__reports_other_exceptions_with_their_type_and_setting():
    bad = component(lambda modality: 1 / 0, suits=frozenset({"vector"}))
    with pytest.raises(AssertionError, match=r"levels_are_as_declared: ZeroDivisionError: .*with Modality"):
        check_component("encoder", bad)


def test_contract_tests__has_one_case_per_component_and_check():
    test = contract_tests(plugin_module(SOUND))
    assert ids_of(test) == [f"sampler:sound-{check.__name__}" for check in checks_for("sampler")]


def test_contract_tests__takes_a_module_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "plugin_under_test", plugin_module(SOUND))
    assert ids_of(contract_tests("plugin_under_test")) == ids_of(contract_tests([("sampler", SOUND)]))


def test_contract_tests__runs_the_check_of_a_case():
    test = contract_tests([("sampler", component(lambda modalities: ShowsNothing()))])
    cases = {case.id: case.values for case in test.pytestmark[0].args[1]}
    with pytest.raises(AssertionError, match="is shown with none"):
        test(*cases["sampler:broken-leaves_something_to_every_sample"])
    test(*cases["sampler:broken-describes_itself"])


def test_contract_tests__skips_what_cannot_be_built_with_the_reason():
    outside = component(lambda modalities: CombinationSampler(), OutsideOptions)
    test = contract_tests([("sampler", outside)])
    cases = {case.id: case.values for case in test.pytestmark[0].args[1]}
    with pytest.raises(pytest.skip.Exception, match="cannot be built without data from outside"):
        test(*cases["sampler:broken-shows_only_what_is_there"])
    with pytest.raises(NotApplicable):
        cases["sampler:broken-shows_only_what_is_there"][1](outside)


def test_contract_tests__without_argument_covers_every_loaded_plugin():
    names = {(kind, one.name) for kind, one in offered()}
    assert {("method", "plain"), ("balancer", "none"), ("dataset", "synthetic"), ("callback", "console")} <= names


def test_contract_example__supplies_options_without_default():
    seen = []

    def build(modalities, modality):
        seen.append(modality)
        return CombinationSampler()

    check_component("sampler", component(build, NamedModality))
    assert set(seen) == {"m0"}


def test_check_component__asks_for_an_example_where_an_option_has_no_default():
    class Needy(Options):
        modality: str

    with pytest.raises(AssertionError, match="Give Needy a classmethod contract_example that returns valid ones"):
        check_component("sampler", component(lambda modalities, modality: CombinationSampler(), Needy))


def test_contract_tests__refuses_a_module_that_offers_nothing():
    with pytest.raises(RobustmmError, match="json offers no component; mark its robustmm_register_"):
        contract_tests(json)


def test_contract_tests__says_how_to_get_pytest(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytest", None)
    with pytest.raises(RobustmmError, match=r"needs pytest: pip install pytest, or 'robustmm\[dev\]'"):
        robustmm.testing.contract_tests([])


def test_checks__leave_the_global_generator_as_it_was():
    before = torch.random.get_rng_state()
    check_component("sampler", SOUND)
    assert torch.equal(torch.random.get_rng_state(), before)
